"""Everything that `tests.gpu` runs, on the simulated card at tiny sizes, and builds that are broken on purpose."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from acestep_core import pipeline
from acestep_core.callbacks import Callbacks
from acestep_core.models.layers import RMSNorm
from acestep_core.sampling import prepare as prepare_module
from acestep_core.sampling.noise import draw_noise
from tests.support.simulated_cuda import SimulatedTensor

from . import estimates, songs, stops
from .context import Context
from .registry import CHECKS, FAILED, NOT_RUN, PASSED
from .runner import CheckResult, run_check
from .simulation import simulated_device

# Gradients are computed by a thread of the real device, which a simulated one does not have.
SIMULATED = [name for name in CHECKS if not name.startswith("train.")]


@pytest.fixture(scope="module")
def patched() -> pytest.MonkeyPatch:
    """Patches that hold for all tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        # torch.compile cannot trace the simulation.
        patch.setattr(songs, "compile_parts", lambda *networks: None)
        patch.setattr(songs, "pick_compile", lambda device, requested: True)
        # diffusers' networks use calls that the simulation does not handle. A CPU runs them in test_device.py.
        find = importlib.util.find_spec
        patch.setattr(
            importlib.util, "find_spec", lambda name, *more: None if name == "diffusers" else find(name, *more)
        )
        yield patch


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, patched) -> dict[str, CheckResult]:
    """The results of the selected checks."""
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    selected = {item.callspec.params["name"] for item in items}
    with simulated_device() as device:
        context = Context(device, quick=True)
        return {name: run_check(CHECKS[name], context) for name in CHECKS if name in selected}


@pytest.mark.parametrize("name", SIMULATED)
def test_on_the_simulated_card(outcomes, name):
    result = outcomes[name]
    assert not result.traceback, result.traceback
    broken = [line for line in result.lines if line.result == FAILED]
    assert result.lines and not broken
    skipped = {line.what for line in result.lines if line.result == NOT_RUN}
    assert skipped == ({"diffusers"} if name == "speed.stages" else set())


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the checks of `stops` run these stages alone."""
    every = stops.stages_of
    monkeypatch.setattr(stops, "stages_of", lambda context: {name: every(context)[name] for name in names})


def failures(name: str) -> list[str]:
    """Run one check on a new simulated card and return what failed."""
    with simulated_device() as device:
        result = run_check(CHECKS[name], Context(device, quick=True))
    assert not result.traceback, result.traceback
    return [line.what for line in result.lines if line.result == FAILED]


def test_a_wrong_dtype_on_the_device_is_found(monkeypatch):
    forward = RMSNorm.forward

    def coarse(norm, x):
        result = forward(norm, x)
        return result.bfloat16().to(x.dtype) if isinstance(x, SimulatedTensor) else result

    monkeypatch.setattr(RMSNorm, "forward", coarse)
    assert failures("parity.dit") == ["tiny, float32", "tiny XL, float32"]


def test_a_wrong_seed_is_found(monkeypatch):
    calls = []

    def other(seeds, frames):
        calls.append(seeds)
        return draw_noise([seed + len(calls) for seed in seeds], frames)

    monkeypatch.setattr(prepare_module, "draw_noise", other)
    assert any("against the CPU" in each for each in failures("song.same_seed"))


def test_a_leak_is_found(monkeypatch):
    alive, prepare = [], pipeline.prepare

    def leaking(*arguments):
        plan = prepare(*arguments)
        alive.append(plan)
        return plan

    only(monkeypatch, "sample")
    monkeypatch.setattr(pipeline, "prepare", leaking)
    assert failures("stop.leak") == ["sample: more memory after it ran again"]


def test_a_stop_without_effect_is_found(monkeypatch):
    only(monkeypatch, "sample", "decode")
    monkeypatch.setattr(Callbacks, "check", lambda callbacks, stage: None)
    assert failures("stop.interrupt") == ["sample: stops", "decode: stops"]


def test_a_wrong_estimate_is_found(monkeypatch):
    module = estimates.estimates()
    tile = module.tile_bytes
    monkeypatch.setattr(module, "tile_bytes", lambda *sizes: tile(*sizes) // 100)
    assert failures("memory.stages") == ["decode a tile", "encode a tile"]


def test_an_estimate_is_neither_too_low_nor_wasteful():
    results = [estimates.compared("x", size * 2**20, 100 * 2**20).result for size in (97, 99, 299, 301)]
    assert results == [FAILED, PASSED, PASSED, FAILED]
    assert estimates.compared("small", 60 * 2**20, 1).result == PASSED  # fixed parts dominate


def test_an_error_is_a_failed_line(monkeypatch):
    def broken(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(songs, "decode_tiled", broken)
    with simulated_device() as device:
        result = run_check(CHECKS["vae.tiles"], Context(device, quick=True))
    (line,) = result.lines
    assert line.result == FAILED and "Tried to allocate 2 GiB" in line.reason and "songs.py" in result.traceback
