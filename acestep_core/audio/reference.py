"""What the model listens to for a timbre: thirty seconds out of a recording of any length."""

from __future__ import annotations

import math

import torch

from .level import check_waveform, to_stereo
from .resample import resample

SECONDS = 30  # as the timbre encoder was trained: 750 latent frames


def reference_audio(waveform: torch.Tensor, sample_rate: float) -> torch.Tensor:
    """Recordings `[batch, channels, samples]` of any rate as `[batch, 2, 30 s]`, 48 kHz, within −1…1.

    Each is ten seconds from its beginning, ten from the end of its first third, and its last ten; a shorter one than
    thirty seconds is repeated first. The original takes each piece from anywhere in its third, by chance; these are
    always the same, as diffusers' are. Raises RequestError for empty, silent or broken audio.
    """
    check_waveform(waveform, sample_rate)
    return reference_pieces(resample(to_stereo(waveform), sample_rate).clamp(-1, 1))


def reference_pieces(waveform: torch.Tensor, rate: int = 48_000) -> torch.Tensor:
    """The three pieces of `[batch, channels, samples]`, one after the other."""
    whole, piece = SECONDS * rate, SECONDS * rate // 3
    if waveform.shape[-1] < whole:
        waveform = waveform.repeat(1, 1, math.ceil(whole / waveform.shape[-1]))
    third = waveform.shape[-1] // 3
    return torch.cat((waveform[..., :piece], waveform[..., third : third + piece], waveform[..., -piece:]), dim=-1)
