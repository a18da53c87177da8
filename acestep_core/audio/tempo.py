"""Tempo of music: onset strength, its autocorrelation and its spectrum, and a choice among octaves.

The onset strength is the spectral flux of mel bands in logarithms. Autocorrelation also has peaks at multiples of the
beat, and the spectrum at fractions. A tempo scores by both, as Peeters proposed (2007), and by Ellis's prior (2007).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SLOWEST, FASTEST = 40.0, 240.0  # BPM
MIN_SECONDS = 4.0  # of music, for any tempo
FRAMES = 100  # of the onset strength, a second
WINDOW = 12 * FRAMES  # frames in which the tempo is constant
WINDOW_SECONDS = 0.04  # of a spectrum, at least
BANDS, LOW_BANDS = 40, 6  # the low bands hold kick drum and bass, which mark beats rather than their fractions
LOWEST, HIGHEST = 30.0, 16_000.0  # Hz
MULTIPLES = ((1, 1.0), (2, 1.0), (3, 0.5), (4, 1.0), (8, 0.5))  # of the beat in the autocorrelation, with weights
SPECTRUM_POWER = 0.25
LOW_WEIGHT = 0.5
PRIOR_BPM, PRIOR_OCTAVES = 115.0, 0.9
FAINT = 0.06  # rise of a mel band at onsets; steady tones stay below
PULSE = 0.15  # autocorrelation at multiples of the beat; noise stays below
NEAR = 0.06  # ratio of tempos that count as one
CLEAR = 0.4  # share by which the best tempo scores above all others if nothing is unsure
PIECE_SECONDS = 30


def find_tempo(mono: Tensor, sample_rate: int) -> tuple[float | None, float]:
    """Return the BPM of `[samples]`, None without a pulse, and a confidence from 0 to 1."""
    if mono.shape[-1] < MIN_SECONDS * sample_rate:
        return None, 0.0
    bands = mel_bands(mono, sample_rate)
    rises = torch.log1p(200 * bands / bands.mean().clamp(min=1e-9)).diff(dim=1).clamp(min=0)
    if rises.mean(0).quantile(0.99) < FAINT:
        return None, 0.0
    grid = torch.exp(torch.arange(math.log(SLOWEST), math.log(FASTEST), 0.0025))
    every, low = (_scores(_onsets(part.mean(0)), grid) for part in (rises, rises[:LOW_BANDS]))
    pulses, beats = (_scaled(a) + LOW_WEIGHT * _scaled(b) for a, b in zip(every, low, strict=True))
    prior = torch.exp(-0.5 * ((grid / PRIOR_BPM).log2() / PRIOR_OCTAVES) ** 2)
    scores = pulses * beats**SPECTRUM_POWER * prior
    best = int(scores.argmax())
    pulse = max(float(every[0][best]), float(low[0][best]))
    if pulse < PULSE:
        return None, 0.0
    others = scores[(grid / grid[best]).log().abs() > NEAR]
    margin = 1 - float(others.max() / scores[best])
    return round(float(grid[best]), 1), min(1.0, margin / CLEAR) * min(1.0, pulse / (2 * PULSE))


def mel_bands(mono: Tensor, sample_rate: int) -> Tensor:
    """Return the magnitudes of mel bands, `[BANDS, frames]`."""
    hop = round(sample_rate / FRAMES)
    size = 2 ** math.ceil(math.log2(WINDOW_SECONDS * sample_rate))
    filters, window = _mel_filters(size, sample_rate), torch.hann_window(size)
    frames = (mono.shape[-1] - size) // hop + 1
    pieces = []
    for start in range(0, frames, PIECE_SECONDS * FRAMES):  # a spectrum of minutes would need a gigabyte
        stop = min(frames, start + PIECE_SECONDS * FRAMES)
        piece = mono[start * hop : (stop - 1) * hop + size]
        spectrum = torch.stft(piece, size, hop, window=window, center=False, return_complex=True)
        pieces.append(filters @ spectrum.abs())
    return torch.cat(pieces, dim=1)


def _mel_filters(size: int, sample_rate: int) -> Tensor:
    """Return triangular filters on the mel scale, `[BANDS, size // 2 + 1]`."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (LOWEST, min(HIGHEST, sample_rate / 2)))
    edges = 700 * (10 ** (torch.linspace(low, high, BANDS + 2) / 2595) - 1)[:, None]
    frequencies = torch.fft.rfftfreq(size, 1 / sample_rate)
    rise = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0)


def _onsets(rise: Tensor) -> Tensor:
    """Return windows of the onset strength without its slow changes, `[windows, frames]`."""
    mean = F.avg_pool1d(rise[None], FRAMES + 1, 1, FRAMES // 2)[0]
    strength = (rise - mean).clamp(min=0)
    size = min(WINDOW, len(strength))
    windows = strength.unfold(0, size, max(1, size // 2))
    return windows - windows.mean(1, keepdim=True)


def _scores(windows: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each BPM of a grid the autocorrelation at multiples of the beat, and the spectrum at the beat."""
    size = windows.shape[1]
    powers = torch.fft.rfft(windows, 2 * size).abs() ** 2
    correlation = torch.fft.irfft(powers, 2 * size)[:, :size] / (torch.arange(size, 0, -1) + FRAMES // 2)
    correlation = (correlation / correlation[:, :1].clamp(min=1e-12)).mean(0)
    near = F.max_pool1d(correlation[None], 3, 1, 1)[0]
    correlation = torch.maximum(correlation, 0.97 * near)  # a beat may lie between two frames
    pulses = torch.zeros(len(grid))
    for multiple, weight in MULTIPLES:
        pulses += weight * _between(correlation, 60 * FRAMES / grid * multiple)
    angles = 2 * math.pi * grid[:, None] / 60 * torch.arange(size) / FRAMES
    tapered = windows * torch.hann_window(size)
    lengths = tapered.abs().sum(1).clamp(min=1e-9)
    beats = torch.hypot(tapered @ angles.cos().T, tapered @ angles.sin().T) / lengths[:, None]
    return pulses.clamp(min=0) / sum(weight for _, weight in MULTIPLES), beats.mean(0)


def _between(values: Tensor, places: Tensor) -> Tensor:
    """Return values between two indices, 0 beyond the last."""
    below = places.long()
    padded = F.pad(values, (0, max(0, int(below.max()) + 2 - len(values))))
    return torch.lerp(padded[below], padded[below + 1], places - below)


def _scaled(values: Tensor) -> Tensor:
    return values / values.max().clamp(min=1e-9)
