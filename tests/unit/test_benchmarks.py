"""The benchmarks at toy sizes: that they run, and that both sides of a comparison do the same work."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from acestep_core import pipeline
from acestep_core.config import VAEConfig
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.tiling import TileLayout
from acestep_core.sampling.velocity import network_velocity
from benchmarks import dit_step, loading, memory, native, stages, vae
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


@pytest.mark.parametrize("module", ["dit_step", "vae", "loading", "memory", "stages", "planner"])
def test_each_says_how_it_is_called(monkeypatch, capsys, module):
    with pytest.raises(SystemExit) as left:
        start(monkeypatch, module, "--help")
    assert left.value.code == 0 and f"python -m benchmarks.{module}" in capsys.readouterr().out


def test_both_sides_of_a_step_give_the_same(monkeypatch, capsys):
    model = dit_step.ours(CONFIG, torch.float32)
    results = []
    with torch.inference_mode():
        for make, network in ((dit_step.our_step, model), (dit_step.their_step, dit_step.theirs(CONFIG, model))):
            torch.manual_seed(1)
            results.append(make(CONFIG, network, 2, torch.float32)())
    assert relative_error(*results) < 1e-4

    monkeypatch.setitem(dit_step.SIZES, "small", CONFIG)
    monkeypatch.setattr(dit_step, "in_child", in_this_process)
    for given, layers in (
        ([], CONFIG.num_hidden_layers),
        (["--once"], CONFIG.num_hidden_layers),
        (["--layers", "1"], 1),
    ):
        start(monkeypatch, "dit_step", "--seconds", "1", "2", "--runs", "1", *given)
        lines = capsys.readouterr().out.splitlines()
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[-3:-1]]
        assert [row[0] for row in rows] == ["1 s", "2 s"] and all(row[2] == "1.0×" for row in rows)
        assert [row[3:5] == ["500000 ms"] * 2 for row in rows] == [given == ["--once"]] * 2
        assert f"small model, {layers} layers" in lines[0]


def in_this_process(module: str, *arguments: str) -> dict:
    """Says of every step that it takes 500 s and a megabyte."""
    assert module == "benchmarks.dit_step" and arguments[0] == "--alone" and arguments[3] == "small"
    found = dit_step.alone(arguments[1], CONFIG, int(arguments[arguments.index("--seconds") + 1]), torch.float32)
    assert found["seconds"] > 0 and found["peak"] >= 0
    return {"seconds": 500, "peak": 2**20}


@pytest.mark.parametrize("config", [CONFIG, replace(tiny.XL, text_hidden_dim=TEXT.hidden_size)])
def test_stages_are_timed_kept_and_drawn(monkeypatch, capsys, tmp_path, config):
    monkeypatch.setattr(stages, "size", lambda _: stages.Size(config, TEXT, VAE))
    kept, picture = tmp_path / "new" / "stages.json", tmp_path / "drawn" / "stages.svg"
    start(monkeypatch, "stages", "--seconds", "1", "2", "--runs", "1", "--warmup", "0", "--save", str(kept),
          "--draw", str(picture))  # fmt: skip
    found = json.loads(kept.read_text())
    assert list(found["seconds"]) == ["1", "2"] and found["peaks"] == {}
    assert all(t > 0 for by_stage in found["seconds"].values() for side in by_stage.values() for t in side.values())
    assert_is_drawn(picture, ["1 s", "2 s"])
    assert "Device memory" not in capsys.readouterr().out


def test_a_picture_is_drawn_again_from_what_was_kept(monkeypatch, capsys, tmp_path):
    kept, picture = tmp_path / "stages.json", tmp_path / "stages.svg"
    kept.write_text(json.dumps({"what": "measured before", "seconds": TIMES}))
    picture.write_text("old")
    start(monkeypatch, "stages", "--from", str(kept), "--draw", str(picture))
    assert_is_drawn(picture, ["10 s", "60 s"])
    assert "Device memory" not in capsys.readouterr().out
    # Of a device with memory of its own there is more to tell.
    peaks = {"10": {stage: {"ours": 2**20, "diffusers": 3 * 2**20} for stage in stages.STAGES}}
    kept.write_text(json.dumps({"what": "measured before", "seconds": TIMES, "peaks": peaks}))
    start(monkeypatch, "stages", "--from", str(kept), "--draw", str(picture))
    assert f"| 10 s |{' diffusers 3.00× (1 MB) |' * 4}" in capsys.readouterr().out


def test_comfyui_is_a_third_side_where_it_has_the_model(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert native.folder() is None
    file = tmp_path / "comfy" / "ldm" / "ace" / "ace_step15.py"
    file.parent.mkdir(parents=True)
    file.touch()
    assert native.folder() == tmp_path
    # Its networks are stood in for by others.
    monkeypatch.setattr(native, "network", lambda *_: torch.nn.Identity())
    monkeypatch.setattr(native, "condition", lambda network, text, *_: network(text))
    monkeypatch.setattr(native, "velocity", lambda network, x, *_: network(x))
    monkeypatch.setattr(native, "autoencoder", lambda config, device, dtype: Decoder(config))
    monkeypatch.setattr(stages, "size", lambda _: stages.Size(CONFIG, TEXT, VAE))
    kept, picture = tmp_path / "stages.json", tmp_path / "stages.svg"
    start(monkeypatch, "stages", "--seconds", "1", "2", "--runs", "1", "--warmup", "0", "--save", str(kept),
          "--draw", str(picture), "--native-seconds", "1")  # fmt: skip
    found = json.loads(kept.read_text())["seconds"]
    third = {
        length: [stage for stage in stages.STAGES if "ComfyUI" in by_stage[stage]] for length, by_stage in found.items()
    }
    assert third == {"1": ["encode", "sample", "decode"], "2": []}
    assert_is_drawn(picture, ["sample, ComfyUI", "decode, ComfyUI"])
    assert not native.offers(tiny.XL)
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert ["ComfyUI" in cell for cell in lines[1][2:6]] == [True] * 4


class Decoder(torch.nn.Module):
    """Called as ComfyUI's autoencoder."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.vae = OobleckVAE(config)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latents.mT)


@pytest.mark.skipif(native.folder() is None, reason="COMFYUI_PATH names no ComfyUI with ACE-Step 1.5")
def test_comfyui_does_the_same_work():
    config, cpu = replace(CONFIG, encoder_intermediate_size=CONFIG.intermediate_size), torch.device("cpu")
    ours, theirs = tiny.model(config), native.network(config, cpu, torch.float32)
    state = ours.state_dict()
    for part in ("encoder", "decoder"):
        rest = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
        getattr(theirs, part).load_state_dict(rest)
    text, lyrics, timbre = draw(1, 5, TEXT.hidden_size), draw(1, 7, TEXT.hidden_size), draw(1, 30, 64)
    x, t, context = draw(1, 300, 64, seed=1), torch.tensor([0.7]), draw(1, 300, 128, seed=2)
    with torch.inference_mode():
        condition = ours.encoder(text, lyrics, timbre[None])
        assert relative_error(native.condition(theirs, text, lyrics, timbre), condition) < 1e-4
        wanted = network_velocity(ours, [condition], context, guided=False)(x, 0.7, False)
        assert relative_error(native.velocity(theirs, x, t, condition, context), wanted) < 1e-4

        vae, its = tiny.vae(VAE), native.autoencoder(VAE, cpu, torch.float32)
        for kind, names in (("stride", ("weight", "bias")), ("alpha", ("alpha", "beta"))):
            pairs = ([each for each in side.decoder.modules() if hasattr(each, kind)] for side in (vae, its))
            for mine, other in zip(*pairs, strict=True):
                for name in names:
                    value, place = getattr(mine, name), getattr(other, name)
                    if isinstance(place, torch.nn.Parameter):
                        place.data.copy_(value.data.view(place.shape))
                    elif place is not None:  # made of two, by its weight norm
                        setattr(other, name, value.data)
        latents = draw(1, 4, 64)
        assert relative_error(its.decode(latents.mT), vae.decode(latents)) < 1e-4


def assert_is_drawn(path: Path, ticks: list[str]) -> None:
    words = [text.text for text in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
    assert all(word in words for word in [*ticks, "decode, ours", "decode, diffusers"])


def test_graphs_are_for_our_side(monkeypatch, tmp_path):
    asked = []

    def noted(*arguments, graphs, **options):
        asked.append(graphs)
        return network_velocity(*arguments, **options)

    monkeypatch.setattr(stages, "network_velocity", noted)
    monkeypatch.setattr(stages, "size", lambda _: stages.Size(CONFIG, TEXT, VAE))
    for more in ([], ["--graphs"]):
        start(monkeypatch, "stages", "--seconds", "1", "--runs", "1", "--warmup", "0", "--save", str(tmp_path / "kept"),
              "--draw", str(tmp_path / "drawn"), *more)  # fmt: skip
        assert ("ours as CUDA graphs" in json.loads((tmp_path / "kept").read_text())["what"]) == bool(more)
    assert asked == [False, True]


def test_sizes_fit_together():
    for name in dit_step.SIZES:
        size = stages.size(name)
        assert size.network.text_hidden_dim == size.text.hidden_size
    assert stages.size("xl").network.is_xl


def test_errors_of_the_autoencoder_are_told_in_decibels():
    wide = VAEConfig(32, 32, 4, channel_multiples=(1, 1, 2, 1), downsampling_ratios=(2, 4, 2, 6))
    with torch.inference_mode():
        found = vae.accuracy(tiny.vae(wide), draw(1, 8, 4), draw(1, 2, 8 * wide.hop))
    ways = ["CPU plug-in, float32", "layers, float32", "layers, float16", "layers, bfloat16"]
    assert [line[:2] for line in found] == [(job, way) for job in ("decode", "encode") for way in ways]
    for fast, single, half, brain in (found[:4], found[4:]):
        assert single[2] < fast[2] < -90 < half[2] < -50 < brain[2] < -20
        assert single[3] is None and fast[3] < -90 < half[3] < -50 < brain[3] < -20
    assert vae.decibels(draw(9) * 1.01, draw(9)) == pytest.approx(-40, abs=0.01)


@pytest.mark.parametrize("job", ["decode", "encode"])
def test_the_autoencoder_runs_once_untimed(monkeypatch, job):
    calls = []
    made = tiny.vae(VAE)
    monkeypatch.setattr(vae, "our_vae", lambda: made)
    monkeypatch.setattr(vae, f"{job}_tiled", lambda *_: calls.append(job))
    assert vae.measure("ours, tiled", job, 1, runs=2)["seconds"] >= 0
    assert len(calls) == 3


def test_the_metered_tile_is_the_largest_that_is_decoded():
    defaults = {name: each.default for name, each in inspect.signature(pipeline.decode).parameters.items()}
    layout = TileLayout(6000, defaults["tile_frames"], defaults["overlap_frames"])
    assert max(tile.last - tile.first for tile in layout) == memory.TILE_FRAMES


def test_all_ways_load_the_same_and_a_song_follows(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "SMALL", tiny.STANDARD)
    loading.write_checkpoint(tmp_path, 0.001)
    file = tmp_path / "model.safetensors"
    assert 0.5e6 < file.stat().st_size < 1.5e6
    loading.forget(file)
    found = [loading.measure(name, tmp_path, torch.float32) for name in loading.CANDIDATES]
    assert len({(each["size"], each["touched"]) for each in found}) == 1
    song = loading.first_song(tmp_path, 5)
    assert 0 < song["loaded"] < song["complete"]
