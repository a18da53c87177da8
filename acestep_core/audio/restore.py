"""Restore the kept parts of an edit's source, and match the level of the generated parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..config import SAMPLE_RATE, samples_of
from .level import SILENCE_PEAK
from .splice import soft_mask, splice

MAX_GAIN = 2.0  # no VAE changes the level by more
WINDOW = SAMPLE_RATE // 20
QUIET = 0.01  # −40 dBFS: below it, the VAE's own noise is as loud as the music


def restore_source(
    generated: torch.Tensor, source: torch.Tensor, regions: Sequence[tuple[float, float]], crossfade: float
) -> torch.Tensor:
    """Scale generated audio `[B, 2, N]` to the level of its source `[1 or B, 2, N]`, then `splice` both.

    The levels are compared outside of the regions (in seconds), where both have the same music. The scaled audio never
    clips. The source keeps its level, even above full scale.
    """
    length = min(generated.shape[-1], source.shape[-1])
    spans = [(samples_of(start), samples_of(end)) for start, end in regions]
    scaled = generated * _gain(generated[..., :length], source[..., :length], soft_mask(length, spans, 0) == 0)
    audible = soft_mask(length, spans, samples_of(crossfade)) > 0
    peak = scaled[..., :length][..., audible].abs().amax(dim=(1, 2), keepdim=True)
    return splice(scaled / peak.clamp(min=1), source, regions, crossfade)


def _gain(generated: torch.Tensor, source: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Return the gain `[B, 1, 1]` that brings `generated` to the level of the source.

    Only windows `outside` of the regions count, and only if both waveforms are loud in them. If no window counts, the
    gain is 1: silent or faded surroundings do not show the level of the music. If the whole source is quiet, the
    latents do not hold its level, and the loudest windows of both waveforms are compared instead.
    """
    whole = outside[: len(outside) // WINDOW * WINDOW].view(-1, WINDOW).all(dim=1)
    if not whole.any():
        return generated.new_ones(len(generated), 1, 1)
    powers = [_power(waveform) for waveform in (generated, source)]
    loudest, highest = (power.amax(dim=1) for power in powers)
    power, target = (power[:, whole] for power in powers)
    loud = (power > QUIET**2) & (target > QUIET**2)
    power, target = (torch.where(loud, values, 0).sum(dim=1) for values in (power, target))
    gain = torch.where(loud.any(dim=1), target / power, 1).sqrt().clamp(1 / MAX_GAIN, MAX_GAIN)
    quiet = (highest < QUIET**2) & (highest > SILENCE_PEAK**2)
    gain = torch.where(quiet, (highest / loudest).sqrt().clamp(max=MAX_GAIN), gain)
    return gain[:, None, None]


def _power(waveform: torch.Tensor) -> torch.Tensor:
    """Return the mean square of each window, `[B, windows]`."""
    whole = waveform[..., : waveform.shape[-1] // WINDOW * WINDOW]
    return whole.square().mean(dim=1).unflatten(-1, (-1, WINDOW)).mean(dim=-1)
