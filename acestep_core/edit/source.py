"""The source of an edit: what may be one, its parts in frames, and making room before and after it."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from ..audio import check_waveform, resample, to_stereo
from ..config import FRAME_RATE, HOP, LATENT_CHANNELS, MAX_FRAMES, MAX_SECONDS, SAMPLE_RATE, samples_of
from ..errors import RequestError

Regions = tuple[tuple[float, float], ...]

GENERATE_FROM = 0.5  # values of a soft mask from here on mean generate


def source_waveform(waveform: Tensor, sample_rate: float) -> Tensor:
    """A recording `[batch, channels, samples]` of any rate as an edit takes it: `[batch, 2, samples]`, 48 kHz.

    Raises RequestError for empty, silent or broken audio, and for more than 600 seconds.
    """
    check_waveform(waveform, sample_rate)
    seconds = waveform.shape[-1] / sample_rate
    if seconds > MAX_SECONDS:
        raise RequestError(
            f"the source is {seconds:g} seconds long, the model makes at most {MAX_SECONDS}: cut it first"
        )
    return resample(to_stereo(waveform), sample_rate)


def extend(source: Tensor, before: float = 0.0, after: float = 0.0) -> tuple[Tensor, Regions]:
    """Makes room of that many seconds before and after a source; returns it padded, and the regions to repaint.

    `source` is a waveform `[batch, 2, samples]`, 48 kHz, or latents `[batch, frames, 64]`. Both lengths are rounded to
    latent frames (0.04 s), so that the source stays on its own grid. The room holds zeros; what a repaint is shown
    there is silence in any case.
    """
    for name, seconds in (("before", before), ("after", after)):
        number = isinstance(seconds, Real) and not isinstance(seconds, bool) and math.isfinite(seconds)
        if not number or seconds < 0:
            raise RequestError(f"the room {name} a source is a number of seconds from 0 on, got {seconds!r}")
    first, last = (round(seconds * FRAME_RATE) for seconds in (before, after))
    if not first and not last:
        raise RequestError("nothing to extend: give seconds before the source, after it, or both")
    latents = source.ndim == 3 and source.shape[2] == LATENT_CHANNELS
    if source.ndim != 3 or 0 in source.shape:
        raise RequestError(
            "a source to extend is a waveform [batch, channels, samples] or latents [batch, frames, "
            f"{LATENT_CHANNELS}], got a tensor of shape {list(source.shape)}"
        )
    axis, unit, rate = (1, 1, FRAME_RATE) if latents else (2, HOP, SAMPLE_RATE)
    length = source.shape[axis] / rate
    total = length + (first + last) / FRAME_RATE
    if total > MAX_SECONDS:
        raise RequestError(f"extended, the song is {total:g} seconds long, the model makes at most {MAX_SECONDS}")
    room = [
        source.new_zeros([*source.shape[:axis], frames * unit, *source.shape[axis + 1 :]]) for frames in (first, last)
    ]
    start = first / FRAME_RATE
    regions = [(0.0, start)] if first else []
    if last:
        regions.append((start + length, math.ceil(total * FRAME_RATE - 1e-6) / FRAME_RATE))
    return torch.cat([room[0], source, room[1]], dim=axis), tuple(regions)


def check_latents(latents: Tensor) -> Tensor:
    """Latents of a source, float32 on the CPU; RequestError when they are none."""
    if (
        not isinstance(latents, Tensor)
        or latents.ndim != 3
        or 0 in latents.shape
        or latents.shape[2] != LATENT_CHANNELS
    ):
        given = list(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise RequestError(f"the source must be latents [batch, frames, {LATENT_CHANNELS}], got {given}")
    if latents.shape[1] > MAX_FRAMES:
        seconds = latents.shape[1] / FRAME_RATE
        raise RequestError(
            f"the source is {seconds:g} seconds long, the model makes at most {MAX_SECONDS}: cut it first"
        )
    if not torch.isfinite(latents).all():
        raise RequestError("the source's latents contain NaN or infinity")
    if (latents == 0).all(dim=2).all(dim=1).any():
        raise RequestError("the source's latents are empty, all zero: encode a recording, or sample a song first")
    return latents.detach().to("cpu", torch.float32)


def check_source_waveform(waveform: Tensor, frames: int) -> Tensor:
    """The waveform that latents of so many frames were encoded from, float32 on the CPU."""
    check_waveform(waveform, SAMPLE_RATE)
    if waveform.shape[1] != 2:
        raise RequestError(f"the source's waveform must be stereo, [batch, 2, samples], got {list(waveform.shape)}")
    own = math.ceil(waveform.shape[-1] / HOP)
    if own != frames:
        raise RequestError(
            f"the source's waveform is {own} latent frames long at 48 kHz and its latents are {frames}: they do not "
            "belong together"
        )
    return waveform.detach().to("cpu", torch.float32)


def check_mask(mask: Tensor, frames: int) -> Tensor:
    """A mask [T] or [B, T], 1 = generate, as booleans [1 or B, T]."""
    if not isinstance(mask, Tensor) or mask.ndim not in (1, 2) or 0 in mask.shape:
        given = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise RequestError(f"a mask is a tensor [frames] or [batch, frames], got {given}")
    if mask.shape[-1] != frames:
        raise RequestError(f"the mask is {mask.shape[-1]} frames long, the source {frames} (25 a second)")
    values = mask.detach().to("cpu", torch.float32)
    if not (torch.isfinite(values).all() and 0 <= values.min() and values.max() <= 1):
        raise RequestError("a mask holds values from 0 (keep) to 1 (generate), this one has others")
    made = (values >= GENERATE_FROM).reshape(-1, frames)
    if not made.any(dim=1).all():
        raise RequestError("the mask is empty: nothing in it is 1 (generate)")
    return made


def frame_of(seconds: float) -> int:
    """The latent frame that a time lies in."""
    return samples_of(seconds) // HOP


def spans(made: Tensor) -> list[tuple[int, int]]:
    """Start and end of every run of True in [T]."""
    edges = torch.diff(made.to(torch.int8), prepend=torch.zeros(1), append=torch.zeros(1)).nonzero().flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
