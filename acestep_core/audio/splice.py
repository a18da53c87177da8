"""Splice generated audio into its source, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..config import samples_of


def splice(
    generated: torch.Tensor, source: torch.Tensor, regions: Sequence[tuple[float, float]], crossfade: float
) -> torch.Tensor:
    """Return `generated` within the regions and `source` outside of them, `[B, 2, N]` for the shorter N.

    generated `[B, 2, N]`, source `[1 or B, 2, N]`, both 48 kHz; regions and crossfade in seconds. The crossfade lies
    outside of a region, on both sides; at the ends of the song it is shorter. Beyond the crossfade the result is the
    source, bit for bit, so both inputs must already have their final level. If one region covers the whole song, the
    result is `generated`.
    """
    length = min(generated.shape[-1], source.shape[-1])
    spans = [(samples_of(start), min(samples_of(end), length)) for start, end in regions]
    if any(start <= 0 and end >= length for start, end in spans):
        return generated
    weight = soft_mask(length, spans, samples_of(crossfade)).to(generated)
    generated, source = generated[..., :length], source[..., :length].to(generated).expand(len(generated), -1, -1)
    blended = weight * generated + (1 - weight) * source
    return torch.where(weight == 0, source, torch.where(weight == 1, generated, blended))


def soft_mask(length: int, spans: Sequence[tuple[int, int]], ramp: int) -> torch.Tensor:
    """Return a mask `[length]`: 1 within the spans (start, end), 0 outside, with ramps of `ramp` steps between.

    A ramp holds neither 0 nor 1: with 3 steps it is 0.25, 0.5, 0.75. At the ends of the song a ramp has fewer steps.
    If two ramps overlap, the higher value counts.
    """
    mask = torch.zeros(length)
    for start, end in spans:
        start, end = max(start, 0), min(end, length)
        before, after = min(ramp, start), min(ramp, length - end)
        rising = _ramp(before)
        mask[start - before : start] = torch.maximum(mask[start - before : start], rising)
        falling = _ramp(after).flip(0)
        mask[end : end + after] = torch.maximum(mask[end : end + after], falling)
        mask[start:end] = 1
    return mask


def _ramp(steps: int) -> torch.Tensor:
    return torch.linspace(0, 1, steps + 2)[1:-1]
