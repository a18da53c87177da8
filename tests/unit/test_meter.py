"""The memory meter of the benchmarks, and the peaks that the README and the help pages quote."""

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


def test_freed_tensors_do_not_count():
    with Meter() as meter:
        first = torch.zeros(100)
        second = first + 1
        assert (meter.now, meter.peak) == (800, 800)
        del first
        view, third = second[10:], torch.zeros(10)  # a view has no memory of its own
        assert (meter.now, meter.peak) == (440, 800)
        second.add_(third.sum())
    assert len(view) == 90 and meter.peak == 800


def test_meta_device_counts_like_a_cpu():
    x, context, condition = draw(1, 200, 64, seed=1), draw(1, 200, 128, seed=2), draw(1, 9, 48, seed=3)
    peaks = []
    for device in ("cpu", "meta"):
        decoder, inputs = tiny.model().decoder.to(device), [each.to(device) for each in (x, context, condition)]
        with metered() as meter:
            prepared = decoder.prepare(*inputs[1:])
            decoder(inputs[0], torch.ones(1, device=device), prepared)
        peaks.append(meter.peak)
    # Only the norms differ: one operation on the CPU, several on the meta device.
    assert 0.9 < peaks[0] / peaks[1] < 1.6


def test_streamed_weights_are_two_layers_and_all_non_layers():
    model = tiny.model()
    encoder = model.encoder
    layers = [memory.weight_bytes(layer) for layer in model.decoder.layers]
    others = [encoder.lyric_encoder, encoder.timbre_encoder, model.tokenizer.attention_pooler, model.detokenizer]
    all_layers = sum(layers) + sum(memory.weight_bytes(layer) for part in others for layer in part.layers)
    assert memory.streamed_weight_bytes(model) == memory.weight_bytes(model) - all_layers + 2 * max(layers)


@pytest.fixture(scope="module")
def peaks():
    """Peaks of a song of four minutes with the 2B model, in gigabytes by setting."""
    rows = memory.estimate(memory.ModelConfig(), torch.bfloat16, 240, False)
    return {row[0]: float(row[1].split()[0]) for row in rows}


def test_int8_fits_into_four_gigabytes(peaks):
    assert peaks["--offload --storage int8"] < 4 and peaks["--stream"] < 2 < 4 < peaks["--offload"]
    network = memory.build_network(memory.ModelConfig(), torch.bfloat16, "int8")
    quantized = [module for module in network.decoder.layers.modules() if isinstance(module, QuantizedLinear)]
    assert len(quantized) == 24 * 11 and {module.weight.dtype for module in quantized} == {torch.int8}


@pytest.mark.parametrize("size", ["2b", "xl"])
def test_quoted_peaks_of_training_are_estimated_ones(size):
    rows = {row[0]: row[1] for row in memory.estimate_training(memory.SIZES[size], torch.bfloat16, 30)}
    page = " ".join((REPO / "docs/training.md").read_text("utf-8").split())
    whole, int8 = rows["--recompute"], rows["--storage int8 --recompute"]
    assert (
        f"{whole} of device memory with a 2B model, {int8}" if size == "2b" else f"{whole} or {int8} with XL"
    ) in page
    assert float(rows["--storage int8 --recompute --modules all"].split()[0]) < 10


def test_quoted_fp8_peaks_are_estimated_ones(peaks):
    network = memory.build_network(memory.ModelConfig(), torch.bfloat16, "fp8_e4m3fn")
    matrices = [module.weight for module in network.decoder.layers.modules() if isinstance(module, torch.nn.Linear)]
    assert len(matrices) == 24 * 11 and {weight.dtype for weight in matrices} == {torch.float8_e4m3fn}
    assert {weight.dtype for weight in network.encoder.parameters()} == {torch.bfloat16}
    fp8, whole = (f"{peaks[name]:.1f} GB" for name in ("ComfyUI, fp8_e4m3fn", "--offload"))
    (line,) = (line for line in (REPO / "README.md").read_text("utf-8").splitlines() if "`fp8_e4m3fn`" in line)
    assert fp8 in line
    for page in ("AS15_LoadModel.md", "AS15_LoadModel/ja.md", "AS15_LoadModel/zh.md"):
        (line,) = (line for line in (REPO / "web/docs" / page).read_text("utf-8").splitlines() if " GB" in line)
        assert fp8 in line and whole in line, page
