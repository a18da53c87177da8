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
FLOOR = 0.1  # dB; the release is exponential above this reduction and linear below it, so that it ends


def reduction_factors(peaks: Tensor, ceiling: float, sample_rate: int) -> Tensor:
    """Return the factor at the start of each group of samples and at the end, `[groups + 1]`, 1 for no reduction.

    peaks: the `group_peaks` of all channels. Between two starts the factor changes linearly. No product of a peak and
    its factor is above `ceiling`.
    """
    needed = 20 * (peaks.double() / ceiling).clamp(min=1).log10()  # dB
    half = max(1, round(LOOKAHEAD * sample_rate / GROUP / 2))
    ahead = 2 * half
    # A start needs what both of its groups need. The level may go down before the first sample too.
    needed = torch.maximum(F.pad(needed, (1, 0)), F.pad(needed, (0, 1)))
    highest = _highest_ahead(F.pad(needed, (ahead, ahead)), ahead + 1)
    reduction = _average(_average(_released(highest, GROUP / (RELEASE * sample_rate)), half + 1), half + 1)
    return (10 ** (-reduction / 20)).float()


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
    slope = decay * torch.arange(len(reduction), dtype=torch.float64)
    lines = torch.log1p(reduction / FLOOR) + slope
    return FLOOR * torch.expm1(torch.maximum(lines.cummax(dim=0).values - slope, reduction.new_zeros(())))


def _average(values: Tensor, count: int) -> Tensor:
    """Return the mean of each value and the count − 1 before it, `[values − count + 1]`. Zeros give exact zeros."""
    sums = F.pad(values.cumsum(dim=0), (1, 0))
    mean = (sums[count:] - sums[:-count]) / count
    return torch.where(mean < 1e-6, 0, mean)  # dB; cumulated rounding is far smaller
