"""Reference audio for the timbre encoder: 30 seconds from a recording of any length."""

from __future__ import annotations

import math

import torch

from ..config import SAMPLE_RATE
from ..errors import RequestError
from .level import check_waveform, to_stereo
from .resample import resample

SECONDS = 30  # as in training: 750 latent frames
LONGER = 0.01  # seconds that an end may lie behind the audio: the page shows hundredths


def reference_audio(
    waveform: torch.Tensor, sample_rate: float, start: float = 0.0, end: float | None = None
) -> torch.Tensor:
    """Cut 30 seconds of timbre reference from recordings `[batch, channels, samples]` of any rate.

    start, end: the part of the recordings to use, in seconds. An end of None is the end of the recordings.

    Returns `[batch, 2, 30 s]` at 48 kHz, within −1…1. The pieces are the first 10 s, the 10 s at one third, and the
    last 10 s. A part shorter than 30 s is repeated first. The original draws each piece at random within its
    third; like diffusers, this function is deterministic. Raises RequestError for a part outside of the recordings,
    and for empty, silent or non-finite audio.
    """
    check_waveform(waveform, sample_rate)
    if start or end is not None:
        waveform = _part(waveform, sample_rate, start, end)
    return reference_pieces(resample(to_stereo(waveform), sample_rate).clamp(-1, 1))


def _part(waveform: torch.Tensor, sample_rate: float, start: float, end: float | None) -> torch.Tensor:
    """Return the samples from `start` to `end` in seconds. Raises RequestError."""
    seconds = waveform.shape[-1] / sample_rate
    if not 0 <= start < seconds:  # NaN is not
        raise RequestError(f"start: must be within the audio of {seconds:g} seconds, got {start:g}")
    last = seconds if end is None else end
    if not start < last <= seconds + LONGER:
        raise RequestError(f"end: must be after start ({start:g}) and at most {seconds:g} seconds, got {last:g}")
    part = waveform[..., round(start * sample_rate) : round(last * sample_rate)]
    try:
        check_waveform(part, sample_rate)
    except RequestError as error:
        raise RequestError(f"start and end: {error}") from None
    return part


def reference_pieces(waveform: torch.Tensor, rate: int = SAMPLE_RATE) -> torch.Tensor:
    """Concatenate the three pieces of `[batch, channels, samples]` at `rate` Hz."""
    length, piece = SECONDS * rate, SECONDS * rate // 3
    if waveform.shape[-1] < length:
        waveform = waveform.repeat(1, 1, math.ceil(length / waveform.shape[-1]))
    third = waveform.shape[-1] // 3
    return torch.cat((waveform[..., :piece], waveform[..., third : third + piece], waveform[..., -piece:]), dim=-1)
