"""Reference audio for the timbre encoder: 30 seconds from a recording of any length."""

from __future__ import annotations

import math

import torch

from ..config import SAMPLE_RATE
from .level import check_waveform, to_stereo
from .resample import resample

SECONDS = 30  # as in training: 750 latent frames


def reference_audio(waveform: torch.Tensor, sample_rate: float) -> torch.Tensor:
    """Cut 30 seconds of timbre reference from recordings `[batch, channels, samples]` of any rate.

    Returns `[batch, 2, 30 s]` at 48 kHz, within −1…1. The pieces are the first 10 s, the 10 s at one third, and the
    last 10 s. A recording shorter than 30 s is repeated first. The original draws each piece at random within its
    third; like diffusers, this function is deterministic. Raises RequestError for empty, silent or non-finite audio.
    """
    check_waveform(waveform, sample_rate)
    return reference_pieces(resample(to_stereo(waveform), sample_rate).clamp(-1, 1))


def reference_pieces(waveform: torch.Tensor, rate: int = SAMPLE_RATE) -> torch.Tensor:
    """Concatenate the three pieces of `[batch, channels, samples]` at `rate` Hz."""
    length, piece = SECONDS * rate, SECONDS * rate // 3
    if waveform.shape[-1] < length:
        waveform = waveform.repeat(1, 1, math.ceil(length / waveform.shape[-1]))
    third = waveform.shape[-1] // 3
    return torch.cat((waveform[..., :piece], waveform[..., third : third + piece], waveform[..., -piece:]), dim=-1)
