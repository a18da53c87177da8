"""A look-ahead limiter for true peaks: it turns loud peaks down in time, and leaves all other samples as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .true_peak import GROUP, PIECE

LOOKAHEAD = 0.005  # seconds before a peak in which the level goes down
RELEASE = 0.1  # seconds
STEPS = 2**16  # of the release at once
FLOOR = 0.1  # dB; the release is exponential above this reduction and linear below it, so that it ends


def reduction_factors(peaks: Tensor, ceiling: float, sample_rate: int) -> Tensor:
    """Return the factor at the start of each group of samples and at the end, `[groups + 1]`, 1 for no reduction.

    peaks: the `group_peaks` of all channels. Between two starts the factor changes linearly. No product of a peak and
    its factor is above `ceiling`.
    """
    half = max(1, round(LOOKAHEAD * sample_rate / GROUP / 2))
    ahead = 2 * half
    needed = (peaks / ceiling).clamp_(min=1).log10_().mul_(20)  # dB
    # A start needs what its group needs and the one before, hence one more. The level may go down before the song.
    reduction = _highest_ahead(F.pad(needed, (ahead + 1, ahead + 1)), ahead + 2)
    reduction = _released(reduction, GROUP / (RELEASE * sample_rate))
    for _ in range(2):  # a triangular window: the level goes down without a corner
        reduction = F.avg_pool1d(reduction[None, None], half + 1, stride=1)[0, 0]
    return reduction.mul_(-math.log(10) / 20).exp_()


def limited(waveform: Tensor, factors: Tensor, gain: float) -> Iterator[Tensor]:
    """Yield consecutive pieces of `[channels, samples]` times `gain` and the `reduction_factors`."""
    ramp = torch.arange(GROUP) / GROUP
    for start in range(0, waveform.shape[-1], PIECE):
        piece = waveform[:, start : start + PIECE]
        part = factors[start // GROUP : math.ceil((start + piece.shape[-1]) / GROUP) + 1]
        if bool((part == 1).all()):
            yield piece * gain
        else:
            steps = part[:-1, None] + (part[1:] - part[:-1])[:, None] * ramp
            yield piece * (steps.flatten()[: piece.shape[-1]] * gain)


def _highest_ahead(values: Tensor, count: int) -> Tensor:
    """Return the maximum of each value and the count − 1 after it, `[values − count + 1]`."""
    width = 1
    while width < count:
        step = min(width, count - width)
        values = torch.maximum(values[:-step], values[step:])
        width += step
    return values


def _released(reduction: Tensor, decay: float) -> Tensor:
    """Return the reduction in dB with a slow return to 0 after each peak, at `decay` time constants per step."""
    # A release is a straight line in log(1 + reduction / FLOOR), so the highest of all lines is a running maximum.
    result, last = torch.empty_like(reduction), 0.0
    for start in range(0, len(reduction), STEPS):
        lines = (reduction[start : start + STEPS].double() / FLOOR).log1p()
        slope = decay * torch.arange(1, len(lines) + 1, dtype=torch.float64)
        lines += slope
        lines[0] = lines[0].clamp(min=last)
        level = (lines.cummax(dim=0).values - slope).clamp(min=0)
        last = float(level[-1])
        result[start : start + STEPS] = FLOOR * level.expm1()
    return result
