"""Where a song is to be made anew, as users say it: ranges of time in words, or a picture of them."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F

from ..config import FRAME_RATE
from ..errors import RequestError

OpenRegions = tuple[tuple[float, float | None], ...]  # an end of None is the end of the song

BETWEEN = re.compile(r"[,;，；、\n]")  # what stands between several of anything, on a Chinese keyboard, too
_TIME = r"((?:\d+:)?\d+(?:\.\d+)?)?"  # seconds, or minutes and seconds
_RANGE = re.compile(_TIME + r"\s*(?:-|–|to)\s*" + _TIME)


def parse_regions(text: str) -> OpenRegions:
    """Regions such as "10-15, 1:20-" in seconds, or in minutes and seconds. Raises RequestError for what is none."""
    parts = [part.strip() for part in BETWEEN.split(text) if part.strip()]
    return tuple(_region(part) for part in parts)


def _region(text: str) -> tuple[float, float | None]:
    match = _RANGE.fullmatch(text)
    if match is None or not any(match.groups()):
        raise RequestError(f"a range is two numbers of seconds such as 10-15, or 40- for all from there, got {text!r}")
    start, end = match.groups()
    return _seconds(start or "0"), None if end is None else _seconds(end)


def _seconds(time: str) -> float:
    minutes, _, seconds = time.rpartition(":")
    return 60 * int(minutes or 0) + float(seconds)


def widen(regions: tuple[tuple[float, float], ...], overlap: float, seconds: float) -> tuple[tuple[float, float], ...]:
    """The regions, each reaching `overlap` seconds further into what there is between them, in `seconds` altogether.

    Raises RequestError when nothing is left of that.
    """
    if not overlap >= 0:  # NaN is not
        raise RequestError(f"an overlap is a number of seconds from 0 on, got {overlap!r}")
    wider = tuple((max(0.0, start - overlap), min(seconds, end + overlap)) for start, end in regions)
    kept = _outside(wider, seconds)
    if overlap and kept * FRAME_RATE < 1:
        song = _outside(regions, seconds)
        raise RequestError(
            f"an overlap of {overlap:g} seconds leaves nothing of the song, which is {song:g} seconds long: give a "
            "shorter one, 1 to 3 seconds are usual"
        )
    return wider


def _outside(regions: tuple[tuple[float, float], ...], seconds: float) -> float:
    """How much of a song lies outside of the regions, in seconds."""
    reached = outside = 0.0
    for start, end in sorted(regions):
        outside += max(0.0, start - reached)
        reached = max(reached, end)
    return outside + max(0.0, seconds - reached)


def noise_mask(mask: torch.Tensor, frames: int) -> torch.Tensor:
    """The `noise_mask` of a LATENT, which has a value for each of its frames, as `frames_mask`."""
    if mask.ndim == 0 or mask.shape[-1] != frames:
        raise RequestError(
            f"the latent's noise mask is {mask.shape[-1] if mask.ndim else 0} frames long, the song {frames} (25 a "
            "second): connect a mask of another size to mask, which is stretched to the song"
        )
    return frames_mask(mask, frames)


def frames_mask(mask: torch.Tensor, frames: int) -> torch.Tensor:
    """A picture of what is to be made, `[..., width]` of any size, as values for `[frames]` or `[batch, frames]`.

    Its last axis is time, its first the batch; what lies between them is averaged.
    """
    if mask.ndim == 0 or 0 in mask.shape:
        raise RequestError(f"a mask needs at least one value, got the shape {list(mask.shape)}")
    mask = mask.detach().to("cpu", torch.float32)
    rows = mask.reshape(1 if mask.ndim == 1 else len(mask), -1, mask.shape[-1]).mean(dim=1, keepdim=True)
    if mask.shape[-1] < frames:
        resized = F.interpolate(rows, frames, mode="linear", align_corners=False)[:, 0]
    else:
        resized = F.interpolate(rows, frames, mode="area")[:, 0]
    return resized[0] if len(resized) == 1 else resized
