"""The meter of benchmarks: what it counts is what lives, on the meta device as with values."""

from __future__ import annotations

import torch

from acestep_core.models.ops import StoredLinear
from benchmarks import memory
from benchmarks.meter import Meter, metered
from tests.support import tiny
from tests.support.tiny import draw


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


def test_a_song_of_four_minutes_fits_into_four_gigabytes():
    """At the real size; the settings that the README names."""
    rows = {
        row[0]: float(row[1].split()[0]) for row in memory.measure(memory.ModelConfig(), torch.bfloat16, 240, False)
    }
    assert rows["--offload --storage int8"] < 4 and rows["--stream"] < 2 < 4 < rows["--offload"]
    stored = memory.network(memory.ModelConfig(), torch.bfloat16, "int8")
    kept = [module for module in stored.decoder.layers.modules() if isinstance(module, StoredLinear)]
    assert len(kept) == 24 * 11 and {module.weight.dtype for module in kept} == {torch.int8}
