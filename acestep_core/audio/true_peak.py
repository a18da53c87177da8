"""True peak of audio (ITU-R BS.1770-4, annex 2): the level between the samples, by four times oversampling."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

MIN_OVERSAMPLED = 176_400  # Hz: four times at 44.1 and 48 kHz, two times at 96 kHz, once from 192 kHz on
GROUP = 16  # samples that share one value of `group_peaks`
BLOCK = 3 * GROUP  # samples per row of the matrix product
PIECE = 2000 * BLOCK  # samples at once
REACH = 16  # samples on each side of a point that its value depends on, as in other meters


def true_peak(waveform: Tensor, sample_rate: int) -> float:
    """Return the true peak of `[channels, samples]` in dBTP, −inf for silence and empty audio."""
    return peak_level(group_peaks(waveform, sample_rate))


def peak_level(peaks: Tensor) -> float:
    """Return the highest of these peaks in dB, −inf for silence and no peaks."""
    highest = float(peaks.max()) if len(peaks) else 0.0
    return 20 * math.log10(highest) if highest > 0 else -math.inf


def group_peaks(waveform: Tensor, sample_rate: int) -> Tensor:
    """Return the highest absolute value in each GROUP samples and up to the next one, `[groups]`, of all channels.

    Outside of the waveform is silence.
    """
    length = waveform.shape[-1]
    groups = math.ceil(length / GROUP)
    pieces = [_piece_peaks(waveform, start, sample_rate) for start in range(0, length, PIECE)]
    return torch.cat(pieces)[:groups] if pieces else torch.zeros(0)


def _piece_peaks(waveform: Tensor, start: int, sample_rate: int) -> Tensor:
    length = waveform.shape[-1]
    rows = math.ceil(min(PIECE, length - start) / BLOCK)
    low, high = start - REACH + 1, start + rows * BLOCK + REACH
    inside = waveform[:, max(low, 0) : min(high, length)].to("cpu", torch.float32)
    padded = torch.nn.functional.pad(inside, (max(-low, 0), max(high - length, 0)))
    frames = padded.unfold(-1, BLOCK + 2 * REACH - 1, BLOCK)  # [channels, rows, …]
    points = frames[..., REACH - 1 : REACH - 1 + BLOCK].unsqueeze(2)
    phases = next((factor for factor in (1, 2) if sample_rate * factor >= MIN_OVERSAMPLED), 4)
    extremes = [_extremes(points)]
    if phases > 1:
        extremes.append(_extremes((frames @ _interpolation(phases)).unflatten(-1, (phases - 1, BLOCK))))
    return torch.stack(extremes).amax(dim=0).flatten()


def _extremes(points: Tensor) -> Tensor:
    """Return the highest absolute value in each group of `[channels, rows, phases, BLOCK]`."""
    grouped = points.unflatten(-1, (-1, GROUP))
    return torch.maximum(grouped.amax(dim=(0, 2, 4)), -grouped.amin(dim=(0, 2, 4)))


@lru_cache(maxsize=2)
def _interpolation(phases: int) -> Tensor:
    """Return a matrix from BLOCK + 2 REACH − 1 samples to the points after each of BLOCK samples, phase by phase."""
    window = torch.kaiser_window(2 * REACH * phases + 1, periodic=False, beta=8.0, dtype=torch.float64)
    matrix = torch.zeros(BLOCK + 2 * REACH - 1, phases - 1, BLOCK, dtype=torch.float64)
    offsets = torch.arange(-REACH + 1, REACH + 1)
    for phase in range(1, phases):
        taps = torch.sinc(phase / phases - offsets.double()) * window[phase - offsets * phases + REACH * phases]
        for sample in range(BLOCK):
            matrix[sample : sample + 2 * REACH, phase - 1, sample] = taps / taps.sum()
    return matrix.flatten(1).float()
