"""Synthetic audio for the tests of levels, `[2, samples]` at 48 kHz."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RATE = 48_000


def tones(*parts: tuple[float, float], frequency: float = 1000.0) -> Tensor:
    """Return a sine whose parts have levels in dBFS and durations in seconds. The phase runs on."""
    gains = torch.cat([torch.full((round(seconds * RATE),), 10 ** (level / 20)) for level, seconds in parts])
    t = torch.arange(len(gains), dtype=torch.float64) / RATE
    return (gains * torch.sin(2 * math.pi * frequency * t)).float().expand(2, -1)


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> Tensor:
    """Return white noise of this standard deviation, another one in each channel."""
    return level * torch.randn(2, round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def music(seconds: float, seed: int = 0) -> Tensor:
    """Return chords, a bass drum and a snare, with a peak of about −3 dBFS."""
    rng = torch.Generator().manual_seed(seed)
    t = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    bar, beat = (t / 2).long(), torch.exp(-10 * ((2 * t) % 1))
    chords = torch.tensor([1.0, 1.335, 1.498, 0.891], dtype=torch.float64)[bar % 4]
    song = torch.zeros(2, len(t), dtype=torch.float64)
    for harmonic, gain in ((1, 1.0), (1.26, 0.7), (1.498, 0.7), (2, 0.5), (4, 0.3), (8, 0.2), (16, 0.1)):
        phase = 2 * math.pi * harmonic * (110 / RATE) * chords.cumsum(0)
        song += 0.08 * gain * torch.sin(phase + torch.rand(2, 1, generator=rng) * math.pi)
    song += 0.35 * beat * torch.sin(2 * math.pi * 55 * t)
    song += 0.05 * beat.roll(RATE // 4) * torch.randn(2, len(t), generator=rng, dtype=torch.float64)
    return song.float()
