"""The source of an edit: its latents, its waveform, and padding before and after it."""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..audio import check_waveform, resample, to_stereo
from ..config import FRAME_RATE, HOP, LATENT_CHANNELS, MAX_FRAMES, MAX_SECONDS, SAMPLE_RATE
from ..errors import RequestError
from .regions import Regions

if TYPE_CHECKING:
    from ..song.song import Song
    from .edit import Edit
    from .morph import Morph


def source_waveform(waveform: Tensor, sample_rate: float) -> Tensor:
    """Convert audio [B, channels, samples] of any rate to the source of an edit, [B, 2, samples] at 48 kHz.

    Raises RequestError for empty, silent or non-finite audio and for more than 600 seconds.
    """
    check_waveform(waveform, sample_rate)
    _check_seconds(waveform.shape[-1] / sample_rate)
    return resample(to_stereo(waveform), sample_rate)


def extend(source: Tensor, before: float = 0.0, after: float = 0.0) -> tuple[Tensor, Regions]:
    """Add seconds before and after a source. Return the padded source and the regions to repaint.

    `source` is a waveform [B, 2, samples] at 48 kHz, or latents [B, T, 64]. Both lengths are rounded to latent frames
    (0.04 s), so that the source keeps its position within a frame. The padding is zeros, which the context of a
    repaint replaces by silence. Raises RequestError.
    """
    for name, seconds in (("before", before), ("after", after)):
        number = isinstance(seconds, Real) and not isinstance(seconds, bool) and math.isfinite(seconds)
        if not number or seconds < 0:
            raise RequestError(f"{name} must be a number of seconds from 0 on, got {seconds!r}")
    if source.ndim != 3 or 0 in source.shape:
        raise RequestError(
            "source must be a waveform [batch, channels, samples] or latents [batch, frames, "
            f"{LATENT_CHANNELS}], got a tensor of shape {list(source.shape)}"
        )
    first, last = (round(seconds * FRAME_RATE) for seconds in (before, after))
    if not first and not last:
        raise RequestError("before and after: nothing to add; give at least 0.04 seconds for one of them")
    axis, hop, rate = (1, 1, FRAME_RATE) if source.shape[2] == LATENT_CHANNELS else (2, HOP, SAMPLE_RATE)
    start, length = first / FRAME_RATE, source.shape[axis] / rate
    total = length + (first + last) / FRAME_RATE
    if total > MAX_SECONDS:
        raise RequestError(
            f"before and after: the song would be {total:g} seconds long, the model generates at most {MAX_SECONDS}"
        )
    padding = [
        source.new_zeros([*source.shape[:axis], frames * hop, *source.shape[axis + 1 :]]) for frames in (first, last)
    ]
    regions = [(0.0, start)] if first else []
    if last:
        regions.append((start + length, math.ceil(total * FRAME_RATE - 1e-6) / FRAME_RATE))
    return torch.cat([padding[0], source, padding[1]], dim=axis), tuple(regions)


def cut(source: Tensor, end: float | None) -> Tensor:
    """Return the first `end` seconds of a source, a waveform or latents as for `extend`, in whole latent frames.

    None, or a time after its end, returns the whole source. Raises RequestError if nothing is left.
    """
    if end is None:
        return source
    axis, hop = (1, 1) if source.shape[2] == LATENT_CHANNELS else (2, HOP)
    frames = round(end * FRAME_RATE)
    if frames < 1:
        raise RequestError(f"end: at {end:g} seconds, nothing of the source is left; choose a later place")
    return source.narrow(axis, 0, min(frames * hop, source.shape[axis]))


def check_latents(latents: Tensor, name: str = "source") -> Tensor:
    """Return latents [B, T, 64] as float32 on the CPU. `name` is the input's. Raises RequestError for unusable ones."""
    if (
        not isinstance(latents, Tensor)
        or latents.ndim != 3
        or 0 in latents.shape
        or latents.shape[2] != LATENT_CHANNELS
    ):
        given = list(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise RequestError(f"{name} must be latents [batch, frames, {LATENT_CHANNELS}], got {given}")
    if latents.shape[1] > MAX_FRAMES:
        _check_seconds(latents.shape[1] / FRAME_RATE)
    if not torch.isfinite(latents).all():
        raise RequestError(f"{name}: its latents contain NaN or infinity; encode or sample it again")
    if (latents == 0).all(dim=2).all(dim=1).any():
        raise RequestError(f"{name}: its latents are empty (all zero); encode a recording or sample a song first")
    return latents.detach().to("cpu", torch.float32)


def check_source_waveform(waveform: Tensor, frames: int) -> Tensor:
    """Return the waveform [B, 2, samples] of a source of `frames` latent frames, float32 on the CPU.

    Raises RequestError if its shape does not match the latents. `encode_audio` has checked the samples.
    """
    if not isinstance(waveform, Tensor) or waveform.ndim != 3 or waveform.shape[1] != 2 or not len(waveform):
        given = list(waveform.shape) if isinstance(waveform, Tensor) else type(waveform).__name__
        raise RequestError(f"waveform must be stereo, [batch, 2, samples], got {given}")
    own = math.ceil(waveform.shape[-1] / HOP)
    if own != frames:
        raise RequestError(
            f"waveform: {own} latent frames long at 48 kHz, but the latents of the source are {frames}; give the audio "
            "that the latents were encoded from"
        )
    return waveform.detach().to("cpu", torch.float32)


def _check_seconds(seconds: float) -> None:
    if seconds > MAX_SECONDS:
        raise RequestError(f"source: {seconds:g} seconds long, the model generates at most {MAX_SECONDS}; cut it first")


def with_source_duration(song: Song, edit: Edit | None, morph: Morph | None) -> Song:
    """Return the song with the duration of its source, if there is one."""
    if morph is not None:
        seconds = morph.frames / FRAME_RATE if edit is None else edit.seconds
    elif edit is not None and (edit.source is not None or song.metadata.duration is None):
        seconds = edit.seconds
    else:
        return song
    return replace(song, metadata=replace(song.metadata, duration=seconds))
