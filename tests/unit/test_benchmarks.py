"""The benchmarks at toy sizes. All sides of a comparison must do the same work."""

from __future__ import annotations

import inspect
import json
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from acestep_core import pipeline
from acestep_core.batch.jobs import BatchJob
from acestep_core.batch.local_pool import LocalPool
from acestep_core.config import ModelConfig, VAEConfig
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.tiling import TileLayout
from acestep_core.sampling.velocity import network_velocity
from benchmarks import batch, dit_step, finish, loading, memory, native, stages, vae
from benchmarks.common import in_child
from tests.support import tiny
from tests.support.tiny import draw, relative_error
from tests.support.tiny_text import CONFIG as TEXT

CONFIG = replace(tiny.STANDARD, sliding_window=128, text_hidden_dim=TEXT.hidden_size)  # diffusers' default window
VAE = VAEConfig(encoder_hidden_size=4, decoder_channels=4, channel_multiples=(1, 1, 1, 1, 1))
TIMES = {
    seconds: {stage: {"ours": 0.1 * n, "diffusers": 0.2 * n} for n, stage in enumerate(stages.STAGES, 1)}
    for seconds in ("10", "60")
}


def start(monkeypatch: pytest.MonkeyPatch, module: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    import_module(f"benchmarks.{module}").main()


@pytest.mark.parametrize("module", ["dit_step", "vae", "loading", "memory", "stages", "planner", "finish", "batch"])
def test_help_has_the_command(monkeypatch, capsys, module):
    with pytest.raises(SystemExit) as exited:
        start(monkeypatch, module, "--help")
    assert exited.value.code == 0 and f"python -m benchmarks.{module}" in capsys.readouterr().out


def test_the_overhead_of_a_song_counts_all_songs_but_the_first():
    class Slow(batch.BytesMaker):
        def make(self, jobs):
            time.sleep(0.01)
            return super().make(jobs)

    assert batch.overhead(LocalPool(Slow(3), 1, lambda: None), 5) >= 0.01
    (outcome,) = Slow(3).make([BatchJob(1, "", ("a",), "", "", None)])
    assert len(outcome.songs[0].data) == 3


def test_both_sides_of_a_step_agree(monkeypatch, capsys):
    model = dit_step.ours(CONFIG, torch.float32)
    results = []
    with torch.inference_mode():
        for build_step, network in ((dit_step.our_step, model), (dit_step.their_step, dit_step.theirs(CONFIG, model))):
            torch.manual_seed(1)
            results.append(build_step(CONFIG, network, 2, torch.float32)())
    assert relative_error(*results) < 1e-4

    monkeypatch.setitem(dit_step.SIZES, "small", CONFIG)
    monkeypatch.setattr(dit_step, "in_child", in_this_process)
    for options, layers in (
        ([], CONFIG.num_hidden_layers),
        (["--once"], CONFIG.num_hidden_layers),
        (["--layers", "1"], 1),
    ):
        start(monkeypatch, "dit_step", "--seconds", "1", "2", "--runs", "1", *options)
        lines = capsys.readouterr().out.splitlines()
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[-3:-1]]
        assert [row[0] for row in rows] == ["1 s", "2 s"] and all(row[2] == "1.0×" for row in rows)
        assert [row[3:5] == ["500000 ms"] * 2 for row in rows] == [options == ["--once"]] * 2
        assert f"small model, {layers} layers" in lines[0]


def in_this_process(module: str, *arguments: str) -> dict:
    """Report 500 s and 1 MB for every step."""
    assert module == "benchmarks.dit_step" and arguments[0] == "--alone" and arguments[3] == "small"
    result = dit_step.alone(arguments[1], CONFIG, int(arguments[arguments.index("--seconds") + 1]), torch.float32)
    assert result["seconds"] > 0 and result["peak"] >= 0
    return {"seconds": 500, "peak": 2**20}


def run_stages(monkeypatch, folder: Path, *options: str, config: ModelConfig = CONFIG) -> tuple[dict, Path]:
    """Run `stages` on tiny networks and return the saved results and the picture."""
    monkeypatch.setattr(stages, "size", lambda _: stages.Size(config, TEXT, VAE))
    saved, picture = folder / "new" / "stages.json", folder / "new" / "stages.svg"
    start(monkeypatch, "stages", "--runs", "1", "--warmup", "0", "--save", str(saved), "--draw", str(picture), *options)
    return json.loads(saved.read_text()), picture


@pytest.mark.parametrize("config", [CONFIG, replace(tiny.XL, text_hidden_dim=TEXT.hidden_size)])
def test_stages_are_timed_saved_and_drawn(monkeypatch, capsys, tmp_path, config):
    results, picture = run_stages(monkeypatch, tmp_path, "--seconds", "1", "2", config=config)
    assert list(results["seconds"]) == ["1", "2"] and results["peaks"] == {}
    assert all(t > 0 for by_stage in results["seconds"].values() for side in by_stage.values() for t in side.values())
    assert_labels(picture, ["1 s", "2 s"])
    output = capsys.readouterr()
    assert "Device memory" not in output.out
    progress = [line for line in output.err.splitlines() if " s of music, " in line]
    sides = 3 if native.is_available(config) else 2
    assert len(progress) == 2 * len(stages.STAGES) * sides


def test_earlier_results_are_drawn_again(monkeypatch, capsys, tmp_path):
    saved, picture = tmp_path / "stages.json", tmp_path / "stages.svg"
    saved.write_text(json.dumps({"what": "earlier", "seconds": TIMES}))
    start(monkeypatch, "stages", "--from", str(saved), "--draw", str(picture))
    assert_labels(picture, ["10 s", "60 s"])
    assert "Device memory" not in capsys.readouterr().out
    peaks = {"10": {stage: {"ours": 2**20, "diffusers": 3 * 2**20} for stage in stages.STAGES}}
    saved.write_text(json.dumps({"what": "earlier", "seconds": TIMES, "peaks": peaks}))
    start(monkeypatch, "stages", "--from", str(saved))
    assert f"| 10 s |{' diffusers 3.00× (1 MB) |' * 4}" in capsys.readouterr().out


def test_comfyui_is_a_third_side_if_it_has_the_model(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert native.folder() is None
    file = tmp_path / "comfy" / "ldm" / "ace" / "ace_step15.py"
    file.parent.mkdir(parents=True)
    file.touch()
    assert native.folder() == tmp_path and not native.is_available(tiny.XL)
    monkeypatch.setattr(native, "build_network", lambda *_: torch.nn.Identity())
    monkeypatch.setattr(native, "condition", lambda network, text, *_: network(text))
    monkeypatch.setattr(native, "velocity", lambda network, x, *_: network(x))
    monkeypatch.setattr(native, "build_autoencoder", lambda config, device, dtype: Decoder(config))
    results, picture = run_stages(monkeypatch, tmp_path, "--seconds", "1", "2", "--native-seconds", "1")
    native_stages = {
        length: [stage for stage in stages.STAGES if "ComfyUI" in by_stage[stage]]
        for length, by_stage in results["seconds"].items()
    }
    assert native_stages == {"1": ["encode", "sample", "decode"], "2": []}
    assert_labels(picture, ["sample, ComfyUI", "decode, ComfyUI"])
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert ["ComfyUI" in cell for cell in lines[1][2:6]] == [True] * 4


class Decoder(torch.nn.Module):
    """An autoencoder with the interface of ComfyUI's."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.vae = OobleckVAE(config)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latents.mT)


@pytest.mark.skipif(native.folder() is None, reason="COMFYUI_PATH has no ComfyUI with ACE-Step 1.5")
def test_comfyui_does_the_same_work():
    config, cpu = replace(CONFIG, encoder_intermediate_size=CONFIG.intermediate_size), torch.device("cpu")
    ours, theirs = tiny.model(config), native.build_network(config, cpu, torch.float32)
    state = ours.state_dict()
    for part in ("encoder", "decoder"):
        rest = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
        getattr(theirs, part).load_state_dict(rest)
    text, lyrics, timbre = draw(1, 5, TEXT.hidden_size), draw(1, 7, TEXT.hidden_size), draw(1, 30, 64)
    x, t, context = draw(1, 300, 64, seed=1), torch.tensor([0.7]), draw(1, 300, 128, seed=2)
    with torch.inference_mode():
        condition = ours.encoder(text, lyrics, timbre[None])
        assert relative_error(native.condition(theirs, text, lyrics, timbre), condition) < 1e-4
        expected = network_velocity(ours, [condition], context, guided=False)(x, 0.7, False)
        assert relative_error(native.velocity(theirs, x, t, condition, context), expected) < 1e-4

        vae, peer = tiny.vae(VAE), native.build_autoencoder(VAE, cpu, torch.float32)
        for kind, names in (("stride", ("weight", "bias")), ("alpha", ("alpha", "beta"))):
            pairs = ([each for each in side.decoder.modules() if hasattr(each, kind)] for side in (vae, peer))
            for layer, other in zip(*pairs, strict=True):
                for name in names:
                    value, target = getattr(layer, name), getattr(other, name)
                    if isinstance(target, torch.nn.Parameter):
                        target.data.copy_(value.data.view(target.shape))
                    elif target is not None:  # computed by weight norm
                        setattr(other, name, value.data)
        latents = draw(1, 4, 64)
        assert relative_error(peer.decode(latents.mT), vae.decode(latents)) < 1e-4


def assert_labels(path: Path, labels: list[str]) -> None:
    texts = [text.text for text in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
    assert {*labels, "decode, ours", "decode, diffusers"} <= set(texts)


def test_graphs_are_for_our_side(monkeypatch, tmp_path):
    options = []

    def recorded(*arguments, graphs, **keywords):
        options.append(graphs)
        return network_velocity(*arguments, **keywords)

    monkeypatch.setattr(stages, "network_velocity", recorded)
    for more in ([], ["--graphs"]):
        results, _ = run_stages(monkeypatch, tmp_path, "--seconds", "1", *more)
        assert ("ours as CUDA graphs" in results["what"]) == bool(more)
    assert options == [False, True]


def test_sizes_match():
    for name in dit_step.SIZES:
        size = stages.size(name)
        assert size.network.text_hidden_dim == size.text.hidden_size
    assert stages.size("xl").network.is_xl


def test_accuracy_is_in_decibels():
    wide = VAEConfig(32, 32, 4, channel_multiples=(1, 1, 2, 1), downsampling_ratios=(2, 4, 2, 6))
    with torch.inference_mode():
        rows = vae.accuracy(tiny.vae(wide), draw(1, 8, 4), draw(1, 2, 8 * wide.hop))
    ways = ["CPU plug-in, float32", "layers, float32", "layers, float16", "layers, bfloat16"]
    assert [row[:2] for row in rows] == [(job, way) for job in ("decode", "encode") for way in ways]
    for fast, single, half, brain in (rows[:4], rows[4:]):
        assert single[2] < fast[2] < -90 < half[2] < -50 < brain[2] < -20
        assert single[3] is None and fast[3] < -90 < half[3] < -50 < brain[3] < -20
    assert vae.decibels(draw(9) * 1.01, draw(9)) == pytest.approx(-40, abs=0.01)


@pytest.mark.parametrize("job", ["decode", "encode"])
def test_vae_has_one_untimed_run(monkeypatch, job):
    calls = []
    network = tiny.vae(VAE)
    monkeypatch.setattr(vae, "our_vae", lambda: network)
    monkeypatch.setattr(vae, f"{job}_tiled", lambda *_: calls.append(job))
    assert vae.measure("ours, tiled", job, 1, runs=2)["seconds"] >= 0
    assert len(calls) == 3


def test_estimated_tile_is_the_largest_one():
    defaults = {name: each.default for name, each in inspect.signature(pipeline.decode).parameters.items()}
    layout = TileLayout(6000, defaults["tile_frames"], defaults["overlap_frames"])
    assert max(tile.last - tile.first for tile in layout) == memory.TILE_FRAMES


def test_all_candidates_load_the_same_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "SMALL", tiny.STANDARD)
    loading.write_checkpoint(tmp_path, 0.001)
    file = tmp_path / "model.safetensors"
    assert 0.5e6 < file.stat().st_size < 1.5e6
    loading.forget(file)
    results = [loading.measure(name, tmp_path, torch.float32) for name in loading.CANDIDATES]
    assert len({(each["size"], each["touched"]) for each in results}) == 1
    song = loading.first_song(tmp_path, 5)
    assert 0 < song["loaded"] < song["complete"]


def test_finishing_needs_less_memory_than_half_of_the_audio_on_top_of_its_copy(monkeypatch, capsys):
    seconds = 240
    for _ in range(3):  # on a busy machine, the system is late to take back pages that were freed
        result = in_child("benchmarks.finish", "--one", "finish at -14 LUFS", "--seconds", str(seconds))
        if result["peak"] < 1.5 * result["size"]:
            break
    assert result["size"] == seconds * 48_000 * 2 * 4 and result["peak"] < 1.5 * result["size"]
    monkeypatch.setattr(finish, "in_child", lambda *_: result)
    start(monkeypatch, "finish", "--seconds", str(seconds))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(finish.CANDIDATES)
    for work in finish.CANDIDATES.values():
        work(finish.sound(1))
