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
from acestep_core.models.tiling import TileLayout
from benchmarks import dit_step, loading, memory, stages, vae
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
    monkeypatch.setattr(dit_step, "in_child", lambda *_: {"peak": 2**20})
    start(monkeypatch, "dit_step", "--seconds", "1", "2", "--runs", "1")
    assert [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[-3:-1]] == ["1 s", "2 s"]


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
    assert "| 10 s | 3.00× (1 MB, 3 MB) |" in capsys.readouterr().out


def assert_is_drawn(path: Path, ticks: list[str]) -> None:
    words = [text.text for text in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
    assert all(word in words for word in [*ticks, "decode, ours", "decode, diffusers"])


def test_sizes_fit_together():
    for name in dit_step.SIZES:
        size = stages.size(name)
        assert size.network.text_hidden_dim == size.text.hidden_size
    assert stages.size("xl").network.is_xl


def test_errors_of_the_autoencoder_are_told_in_decibels():
    wide = VAEConfig(32, 32, 4, channel_multiples=(1, 1, 2, 1), downsampling_ratios=(2, 4, 2, 6))
    with torch.inference_mode():
        found = vae.accuracy(tiny.vae(wide), draw(1, 8, 4), draw(1, 2, 8 * wide.hop))
    ways = ["fast way, float32", "layers, float32", "layers, bfloat16"]
    assert [line[:2] for line in found] == [(job, way) for job in ("decode", "encode") for way in ways]
    for fast, single, half in (found[:3], found[3:]):
        assert single[2] < fast[2] < -90 < half[2] < -20
        assert single[3] is None and fast[3] < -90 < half[3] < -20
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
