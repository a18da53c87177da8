"""The meter of benchmarks: what it counts is what lives, on the meta device as with values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from acestep_core.models.ops import QuantizedLinear
from benchmarks import memory
from benchmarks.meter import Meter, metered
from tests.support import tiny
from tests.support.tiny import draw

REPO = Path(__file__).parents[2]


def test_what_is_gone_counts_no_more():
    with Meter() as meter:
        first = torch.zeros(100)
        second = first + 1
        assert (meter.now, meter.peak) == (800, 800)
        del first
        view, third = second[10:], torch.zeros(10)  # a view is not memory
        assert (meter.now, meter.peak) == (440, 800)
        second.add_(third.sum())
    assert len(view) == 90 and meter.peak == 800


def test_nothing_computed_counts_like_the_real_thing():
    x, context, condition = draw(1, 200, 64, seed=1), draw(1, 200, 128, seed=2), draw(1, 9, 48, seed=3)
    peaks = []
    for device in ("cpu", "meta"):
        decoder, inputs = tiny.model().decoder.to(device), [each.to(device) for each in (x, context, condition)]
        with metered() as meter:
            prepared = decoder.prepare(*inputs[1:])
            decoder(inputs[0], torch.ones(1, device=device), prepared)
        peaks.append(meter.peak)
    # Beyond a few scalars only the norms differ: one operation on the one device, several on the other.
    assert 0.9 < peaks[0] / peaks[1] < 1.6


def test_streamed_weights_are_two_layers_and_the_rest():
    model = tiny.model()
    layers = [memory.size(layer) for layer in model.decoder.layers]
    others = sum(sum(map(memory.size, part.layers)) for part in tiny_stacks(model))
    assert memory.streamed_size(model) == memory.size(model) - sum(layers) - others + 2 * max(layers)


def tiny_stacks(model):
    heard = model.encoder
    return [heard.lyric_encoder, heard.timbre_encoder, model.tokenizer.attention_pooler, model.detokenizer]


@pytest.fixture(scope="module")
def peaks():
    """Of a song of four minutes, at the real size, in gigabytes: by setting."""
    rows = memory.measure(memory.ModelConfig(), torch.bfloat16, 240, False)
    return {row[0]: float(row[1].split()[0]) for row in rows}


def test_a_song_of_four_minutes_fits_into_four_gigabytes(peaks):
    """The settings that the README names."""
    assert peaks["--offload --storage int8"] < 4 and peaks["--stream"] < 2 < 4 < peaks["--offload"]
    stored = memory.network(memory.ModelConfig(), torch.bfloat16, "int8")
    kept = [module for module in stored.decoder.layers.modules() if isinstance(module, QuantizedLinear)]
    assert len(kept) == 24 * 11 and {module.weight.dtype for module in kept} == {torch.int8}


def test_fp8_in_comfyui_takes_what_its_pages_say(peaks):
    stored = memory.network(memory.ModelConfig(), torch.bfloat16, "fp8_e4m3fn")
    matrices = [module.weight for module in stored.decoder.layers.modules() if isinstance(module, torch.nn.Linear)]
    assert len(matrices) == 24 * 11 and {weight.dtype for weight in matrices} == {torch.float8_e4m3fn}
    assert {weight.dtype for weight in stored.encoder.parameters()} == {torch.bfloat16}
    fp8, whole = (f"{peaks[name]:.1f} GB" for name in ("ComfyUI, fp8_e4m3fn", "--offload"))
    (line,) = (line for line in (REPO / "README.md").read_text("utf-8").splitlines() if "`fp8_e4m3fn`" in line)
    assert fp8 in line
    for page in ("AS15_LoadModel.md", "AS15_LoadModel/zh.md"):
        (line,) = (line for line in (REPO / "web/docs" / page).read_text("utf-8").splitlines() if " GB" in line)
        assert fp8 in line and whole in line, page
