"""Takes for the page: files to play, peaks to draw, and gains that match their loudness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ...acestep_core.audio import measure_loudness
from .waveforms import percents, temporary_file

PARTS = 800  # of a waveform


def takes_gains(takes: Sequence[tuple[torch.Tensor, int]]) -> list[float]:
    """Return the gain in dB that makes each take as loud as the quietest, 0 for a silent one."""
    levels = [measure_loudness(waveform, rate).integrated for waveform, rate in takes]
    quietest = min((level for level in levels if level > -math.inf), default=0.0)
    return [quietest - level if level > -math.inf else 0.0 for level in levels]


def shown_take(waveform: torch.Tensor, sample_rate: int, gain: float) -> dict[str, Any]:
    """Return what the page draws and plays of a take."""
    low, high = percents(waveform, PARTS)
    file = temporary_file(waveform, sample_rate)
    return {**file, "seconds": waveform.shape[-1] / sample_rate, "gain": round(gain, 2), "low": low, "high": high}
