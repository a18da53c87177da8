"""Regions: the parts of a song to generate, in seconds."""

from __future__ import annotations

import math
import re

from ..config import FRAME_RATE, samples_of
from ..errors import RequestError

Regions = tuple[tuple[float, float], ...]
OpenRegions = tuple[tuple[float, float | None], ...]  # an end of None is the end of the song

BETWEEN = re.compile(r"[,;，；、\n]")  # separators of a list, also those of a Chinese keyboard
_TIME = r"((?:\d+:)?\d+(?:\.\d+)?)?"  # seconds, or minutes and seconds
_RANGE = re.compile(_TIME + r"\s*(?:-|–|to)\s*" + _TIME)


def parse_regions(text: str) -> OpenRegions:
    """Parse regions such as "10-15, 1:20-", in seconds or in minutes and seconds. Raises RequestError."""
    parts = [part.strip() for part in BETWEEN.split(text) if part.strip()]
    return tuple(_parse_region(part) for part in parts)


def parse_time(text: str) -> float | None:
    """Return the seconds of a time such as "42" or "1:20", or None for any other text."""
    match = re.fullmatch(_TIME, text.strip())
    return None if match is None or match[1] is None else _parse_seconds(match[1])


def _parse_region(text: str) -> tuple[float, float | None]:
    match = _RANGE.fullmatch(text)
    if match is None or not any(match.groups()):
        raise RequestError(
            f"range must be two numbers of seconds such as 10-15, or 40- up to the end of the song, got {text!r}"
        )
    start, end = match.groups()
    return _parse_seconds(start or "0"), None if end is None else _parse_seconds(end)


def _parse_seconds(time: str) -> float:
    minutes, _, seconds = time.rpartition(":")
    return 60 * int(minutes or 0) + float(seconds)


def check_region(region: tuple[float, float | None], frames: int, seconds: float) -> tuple[float, float]:
    """Return a region of a song of `frames` latent frames, its end resolved. Raises RequestError.

    seconds: the duration of the audio, which may end within the last frame.
    """
    longest = frames / FRAME_RATE
    try:
        start, end = region
        start, end = float(start), longest if end is None else float(end)
    except (TypeError, ValueError):
        raise RequestError(f"region must be a start and an end in seconds, got {region!r}") from None
    if not (math.isfinite(start) and math.isfinite(end)):
        raise RequestError(f"region: start and end must be finite seconds, got {start} and {end}")
    if end <= start:
        raise RequestError(f"region: the end must be after the start, got {start:g} to {end:g} seconds")
    if start < 0 or start >= seconds or end > longest + 1e-6:
        raise RequestError(
            f"region: {start:g} to {end:g} seconds reaches out of the song, which is {seconds:g} seconds long; "
            "choose an earlier region, or make the song longer with Extend"
        )
    # A region up to the last sample includes the rest of the last frame, which has no audio to keep.
    return start, longest if samples_of(end) >= samples_of(seconds) else end


def widen(regions: Regions, overlap: float, seconds: float) -> Regions:
    """Grow each region by `overlap` seconds on both sides, within a song of `seconds`.

    Raises RequestError if nothing of the song is left between the regions.
    """
    if not overlap >= 0:  # NaN is not
        raise RequestError(f"overlap must be a number of seconds from 0 on, got {overlap!r}")
    wider = tuple((max(0.0, start - overlap), min(seconds, end + overlap)) for start, end in regions)
    if overlap and _outside(wider, seconds) * FRAME_RATE < 1:
        raise RequestError(
            f"overlap: {overlap:g} seconds leave nothing of the {_outside(regions, seconds):g} seconds to keep; "
            "choose a shorter overlap, 1 to 3 seconds are usual"
        )
    return wider


def _outside(regions: Regions, seconds: float) -> float:
    """Return how many seconds of a song lie outside of the regions."""
    reached = outside = 0.0
    for start, end in sorted(regions):
        outside += max(0.0, start - reached)
        reached = max(reached, end)
    return outside + max(0.0, seconds - reached)
