"""All work of a GPU on a simulated one: every tensor is on the right device, and results equal those of a CPU.

For the limits of this simulation see `tests.support.simulated_cuda`.
"""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from acestep_core import load
from acestep_core.callbacks import Callbacks
from acestep_core.edit.edit import Edit
from acestep_core.edit.morph import Morph
from acestep_core.edit.source import extend
from acestep_core.edit.tasks import COMPLETE, COVER, LEGO, REPAINT
from acestep_core.models import layers
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.pipeline import Model, encode, encode_audio, generate, load_model, sample, tokenize
from acestep_core.planner.decode_batch import CodeRow
from acestep_core.planner.decoding import generate_tokens
from acestep_core.planner.load_planner import Planner, load_planner
from acestep_core.planner.network import PlannerNetwork
from acestep_core.planner.planning import plan, plan_codes
from acestep_core.planner.scoring import score_codes
from acestep_core.planner.token_sampling import TokenSampling
from acestep_core.runtime import cuda_graphs, devices
from acestep_core.runtime.cuda_graphs import WARM_UPS
from acestep_core.runtime.placement import Offload, Resident
from acestep_core.sampling.guidance import METHODS
from acestep_core.sampling.settings import SamplingSettings
from acestep_core.sampling.solvers import SOLVERS
from acestep_core.song.song import Metadata, Song
from tests.support import tiny_checkpoint, tiny_planner, tiny_text
from tests.support.simulated_cuda import DeviceMismatch, SimulatedTensor, simulated_capture, simulated_cuda
from tests.support.simulated_streams import DEVICE
from tests.support.tiny import draw, relative_error

tiny_tokenizer_dir = tiny_text.tiny_tokenizer_dir

FRAMES = 128
SOURCE = draw(1, FRAMES, 64, seed=5)
WAVE = draw(1, 2, FRAMES * 1920, seed=6) * 0.1
SONG = Song(
    "warm lo-fi piano", "[Verse]\nslow river", Metadata(bpm=90, key="C major", time_signature="3", duration=5.12)
)
FEW = SamplingSettings(steps=2)
EXTENDED, NEW_REGIONS = extend(SOURCE, after=1.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_tokenizer_dir):
    made = {}
    for name in ("turbo", "base"):
        made[name] = tmp_path_factory.mktemp(name)
        tiny_checkpoint.write_tiny_checkpoint(made[name], tiny_tokenizer_dir, turbo=name == "turbo")
    made["planner"] = tiny_planner.write_tiny_planner(tmp_path_factory.mktemp("planner") / "acestep-5Hz-lm-tiny")
    return made


def song(model: Model, settings: SamplingSettings = FEW, edit: Edit | None = None, **options) -> torch.Tensor:
    condition = encode(model, SONG) if edit is None else encode(model, SONG, edit.task, edit.tracks)
    seconds = FRAMES / 25 if edit is None else None
    return sample(model, condition, seconds=seconds, seeds=[7], settings=settings, edit=edit, **options)


def whole(model: Model, **options) -> torch.Tensor:
    return generate(model, SONG, seed=7, settings=FEW, **options).waveform


def edited(task, model: Model, **options) -> torch.Tensor:
    return song(model, edit=Edit(task, **({"source": SOURCE} | options)))


def morphed(model: Model) -> torch.Tensor:
    here, there = encode(model, SONG), encode(model, replace(SONG, caption="drums"))
    return sample(model, there, seeds=[2], settings=FEW, morph=Morph(here, SOURCE))


TURBO_WORK = {
    "song": whole,
    "batch": lambda m: generate(m, [SONG, replace(SONG, lyrics="")], seed=[1, 2], settings=FEW).latents,
    "retake": lambda m: song(m, retake=(3, 0.4)),
    "timbre": lambda m: song(m, timbre=[SOURCE]),
    "timesteps": lambda m: song(m, SamplingSettings(timesteps=(1.0, 0.6, 0.3, 0.0))),
    "cover": lambda m: edited(COVER, m, strength=0.5, noise_strength=0.3),
    "cover of latents": lambda m: edited(COVER, m, use_codes=False, blend=0.3),
    "codes": lambda m: edited(COVER, m, source=None, codes=((1, 2, 3, 4) * 7,)),
    "repaint": lambda m: whole(m, edit=Edit(REPAINT, SOURCE, regions=[(1.0, 3.0)], waveform=WAVE)),
    "repaint by a mask": lambda m: edited(REPAINT, m, mask=(torch.arange(FRAMES) > 70).float(), mode="aggressive"),
    "extend": lambda m: edited(REPAINT, m, source=EXTENDED, regions=NEW_REGIONS),
    "audio": lambda m: encode_audio(m, WAVE[..., : 30 * 1920], 48_000),
    "tokens": lambda m: torch.tensor(tokenize(m, SOURCE)),
}
BASE_WORK = {
    **{
        f"{method}": lambda m, method=method: song(m, SamplingSettings(2, guidance_scale=4.0, guidance_method=method))
        for method in METHODS
    },
    **{f"{solver}": lambda m, solver=solver: song(m, SamplingSettings(2, solver=solver)) for solver in SOLVERS},
    "lego": lambda m: edited(LEGO, m, tracks=("drums",), regions=[(1.0, 3.0)]),
    "complete": lambda m: edited(COMPLETE, m, tracks=("drums", "bass")),
    "morph": morphed,
}


@pytest.fixture(scope="module")
def models(folders) -> dict[str, tuple[Model, Model]]:
    """One model of each kind on the CPU and one on the simulated GPU."""
    here = {kind: load_model(folders[kind], device="cpu", dtype="float32") for kind in ("turbo", "base")}
    with simulated_cuda():
        there = {kind: load_model(folders[kind], device="cuda", dtype="float32") for kind in here}
    return {kind: (here[kind], there[kind]) for kind in here}


@pytest.mark.parametrize(
    ("kind", "work"),
    [("turbo", work) for work in TURBO_WORK.values()] + [("base", work) for work in BASE_WORK.values()],
    ids=[*TURBO_WORK, *BASE_WORK],
)
def test_results_equal_those_of_the_cpu(models, kind, work):
    here, there = models[kind]
    with simulated_cuda():
        assert isinstance(there.network.decoder.layers[0].mlp.up_proj.weight, SimulatedTensor)
        got = work(there)
    assert not isinstance(got, SimulatedTensor) and torch.allclose(got.float(), work(here).float(), atol=2e-4)


def test_songs_of_one_condition_share_its_keys(models, monkeypatch):
    """Expanded over the songs, they would have a stride of zero, which some versions of cuDNN misread."""
    here, there = models["base"]
    sdpa, keys = layers.F.scaled_dot_product_attention, []

    def recording(q, k, v, **options):
        keys.append((tuple(k.shape), 0 in k.stride() or 0 in v.stride()))
        return sdpa(q, k, v, **options)

    def takes(model: Model) -> torch.Tensor:
        settings = SamplingSettings(2, guidance_scale=4.0)
        return sample(model, encode(model, SONG), seconds=FRAMES / 25, seeds=[1, 2, 3], settings=settings)

    with simulated_cuda():
        monkeypatch.setattr(layers.F, "scaled_dot_product_attention", recording)
        got = takes(there)
        monkeypatch.undo()
    assert {shape[0] for shape, _ in keys} >= {1, 6} and not any(expanded for _, expanded in keys)
    assert relative_error(got, takes(here)) < 1e-3


@pytest.mark.parametrize("options", [
    {"dtype": "auto"}, {"dtype": "float16"}, {"storage": "int8", "offload": True}, {"storage": "fp8", "stream": True},
    {"storage": "int8", "offload": True, "graphs": True},
], ids=str)  # fmt: skip
def test_every_memory_option_generates_the_song(folders, models, options):
    expected = whole(models["turbo"][0])
    with simulated_cuda():
        model = load_model(folders["turbo"], device="cuda", **options)
        got = whole(model)
        assert torch.equal(whole(model), got)
        networks = (model.network, model.vae, model.text_encoder.module)
        resident = isinstance(model.placement, Resident)
        assert all(isinstance(p, SimulatedTensor) == resident for network in networks for p in network.parameters())
    assert torch.nn.functional.cosine_similarity(got.flatten(), expected.flatten(), dim=0) > 0.97


def test_loading_copies_no_vae_for_a_stored_silence(folders, monkeypatch):
    used, use = [], Offload.use
    monkeypatch.setattr(Offload, "use", lambda self, module: used.append(module) or use(self, module))
    with simulated_cuda():
        load_model(folders["turbo"], device="cuda", dtype="float32", offload=True)
    assert not used


@pytest.mark.parametrize("options", [{}, {"offload": True}, {"stream": True}], ids=str)
def test_missing_silence_is_encoded_on_the_gpu(tmp_path, tiny_tokenizer_dir, monkeypatch, options):
    tiny_checkpoint.write_tiny_checkpoint(tmp_path, tiny_tokenizer_dir)
    (missing,) = tmp_path.rglob("silence_latent.pt")
    missing.unlink()
    encode, on_gpu = OobleckVAE.encode, []

    def recording(vae, waveform, *rest):
        on_gpu.append((isinstance(waveform, SimulatedTensor), isinstance(vae.encoder.conv1.weight, SimulatedTensor)))
        return encode(vae, waveform, *rest)

    monkeypatch.setattr(OobleckVAE, "encode", recording)
    with simulated_cuda():
        model = load_model(tmp_path, device="cuda", dtype="float32", **options)
        assert on_gpu == [(True, True)]
        assert isinstance(model.network.silence_latent, SimulatedTensor) == (not options)
    here = load_model(tmp_path, device="cpu", dtype="float32").network.silence_latent
    with simulated_cuda():
        assert torch.allclose(model.network.silence_latent.cpu(), here, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "evaluations", "graphs"),
    [
        ("turbo", SamplingSettings(steps=6), 6, 1),
        ("turbo", SamplingSettings(steps=3, solver="heun"), 5, 1),
        ("base", SamplingSettings(8, guidance_scale=4.0, guidance_interval=(0.6, 0.95)), 8, 2),
    ],
    ids=["euler", "heun", "guidance interval"],
)
def test_a_step_is_captured_and_replayed(models, monkeypatch, caplog, kind, settings, evaluations, graphs):
    _, there = models[kind]
    replayed, paced = [], []
    monkeypatch.setattr(cuda_graphs.Pace, "__call__", lambda self: paced.append(self))
    with simulated_cuda():
        replay = torch.cuda.CUDAGraph.replay
        monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replayed.append(graph), replay(graph)))
        expected = song(there, settings)
        assert not replayed
        got = song(replace(there, graphs=True), settings)
        captures = DEVICE.captures
    assert torch.equal(got, expected)
    assert "CUDA graphs are not used" not in caplog.text
    assert (len(replayed), len(set(replayed)), len(paced)) == (evaluations - WARM_UPS * graphs, graphs, evaluations)
    assert len(captures) == graphs and all(capture.warm for capture in captures)
    assert len({(capture.stream, capture.pool) for capture in captures}) == 1


def test_steps_run_eagerly_if_a_capture_fails(models, monkeypatch):
    attempts, warnings = [], []

    @contextmanager
    def fail(graph, pool, stream, **options):
        attempts.append(options)
        with simulated_capture(graph, pool, stream):
            yield
        raise RuntimeError("operation not permitted when stream is capturing")

    _, there = models["turbo"]
    settings = SamplingSettings(steps=5)
    with simulated_cuda():
        expected = song(there, settings)
        monkeypatch.setattr(torch.cuda, "graph", fail)
        for _ in range(2):
            got = song(replace(there, graphs=True), settings, callbacks=Callbacks(warning=warnings.append))
            assert torch.equal(got, expected)
    assert len(attempts) == 2 and attempts[0]["capture_error_mode"] == "thread_local"  # one per song
    assert len(warnings) == 2 and "CUDA graphs are not used" in warnings[0]


def test_graphs_are_an_option_of_load_model(folders):
    with simulated_cuda():
        assert load_model(folders["turbo"], device="cuda", graphs=True, offload=True).graphs
    warnings = []
    model = load_model(folders["turbo"], device="cpu", graphs=True, callbacks=Callbacks(warning=warnings.append))
    assert not model.graphs and "graphs are ignored" in warnings[0]


def test_compile_is_an_option_of_load_model(folders, monkeypatch):
    compiled = []
    monkeypatch.setattr(load, "compile_parts", lambda *networks: compiled.append(networks))
    monkeypatch.setattr(load, "pick_compile", lambda device, requested, callbacks: requested)
    with simulated_cuda():
        model = load_model(folders["turbo"], device="cuda", compile=True)
        load_model(folders["turbo"], device="cuda")
        monkeypatch.setattr(torch.version, "hip", "6.4")
        monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)  # without asking AMD's driver
        other = load_model(folders["turbo"], device="cuda", compile=True)
    assert compiled == [(model.network,), (other.network, other.vae)]


def planned(planner: Planner) -> tuple[list[object], float]:
    (facts,) = plan(planner, replace(SONG, metadata=Metadata(duration=12.0)), [3], rewrite_caption=False)
    (found,) = plan_codes(planner, replace(SONG, metadata=replace(SONG.metadata, duration=12.0)), [3])
    (scored,) = score_codes(planner, [found[:20]], SONG)
    return [facts, found], scored.reward


@pytest.mark.parametrize("options", [{}, {"offload": True, "storage": "int8"}], ids=str)
def test_planner_results_equal_those_of_the_cpu(folders, options):
    with simulated_cuda():
        got, reward = planned(load_planner(folders["planner"], device="cuda", dtype="float32", **options))
    storage = options.get("storage")
    expected = planned(load_planner(folders["planner"], device="cpu", dtype="float32", storage=storage))
    assert got == expected[0] and reward == pytest.approx(expected[1], abs=1e-4)


def test_the_code_loop_is_captured_and_replayed(folders, caplog):
    with simulated_cuda():
        planner = load_planner(folders["planner"], device="cuda", dtype="float32")
        rows = [CodeRow(list(range(1, 250)), seed, 25, negative_prompt=[1, 2, 3]) for seed in (1, 2)]
        sampling = TokenSampling(temperature=0.85, top_p=0.9, guidance=2.0)
        both = [generate_tokens(replace(planner, graphs=graphs), rows, sampling, "codes") for graphs in (True, False)]
        captures = DEVICE.captures
    assert both[0] == both[1] and len(set(both[0][0])) > 5
    assert "CUDA graphs are not used" not in caplog.text
    assert len(captures) == 2 and all(capture.warm for capture in captures)  # for 256 slots and for the whole cache
    assert len({(capture.stream, capture.pool) for capture in captures}) == 1


def test_nothing_is_captured_with_cuda_malloc_async(models, folders):
    """There a failed capture would break the allocator of the whole process."""
    warnings = []
    with simulated_cuda():
        DEVICE.allocator = "cudaMallocAsync"
        song(replace(models["turbo"][1], graphs=True), callbacks=Callbacks(warning=warnings.append))
        planner = load_planner(folders["planner"], device="cuda", dtype="float32")
        generate_tokens(planner, [CodeRow([1, 2, 3], 1, 5)], TokenSampling(), "codes")
        model = load_model(folders["turbo"], device="cuda", graphs=True, callbacks=Callbacks(warning=warnings.append))
        assert DEVICE.captures == [] and DEVICE.made == 0
    assert not model.graphs
    assert len(warnings) == 2 and all("cudaMallocAsync" in warning for warning in warnings)


def test_the_planner_uses_few_cache_lengths(folders, monkeypatch):
    """On a GPU, where each costs a plan for its attention."""
    extents, forward = set(), PlannerNetwork.forward

    def recording(network, tokens, starts, cache, extent, table=None):
        if tokens.shape[1] == 1:
            extents.add(extent)
        return forward(network, tokens, starts, cache, extent, table)

    monkeypatch.setattr(PlannerNetwork, "forward", recording)
    for device in ("cuda", "cpu"):
        extents.clear()
        with simulated_cuda():
            planner = load_planner(folders["planner"], device=device, dtype="float32")
            row = CodeRow(list(range(1, 250)), 1, 20, negative_prompt=[1, 2, 3])
            generate_tokens(replace(planner, graphs=False), [row], TokenSampling(guidance=2.0), "codes")
        assert len(extents) == (2 if device == "cuda" else 19), (device, extents)


def test_the_simulation_is_as_strict_as_cuda():
    with simulated_cuda(), torch.no_grad():
        linear = torch.nn.Linear(3, 4, device="cuda")
        with pytest.raises(DeviceMismatch, match="some on the CPU"):
            linear(torch.zeros(2, 3))
        with pytest.raises(TypeError, match="can't convert"):
            linear.weight.numpy()
        here = torch.ones(3, device="cuda")
        with torch.cuda.graph(torch.cuda.CUDAGraph()), pytest.raises(RuntimeError, match="not permitted"):
            bool(here.sum() > 0)
        graph = torch.cuda.CUDAGraph()
        with simulated_capture(graph):
            here.mul_(2)
        graph.replay()
        assert here.tolist() == [2.0, 2.0, 2.0]
