"""Checks of a node's inputs before anything runs, for `validate_inputs`.

ComfyUI passes the values of widgets, None for a linked input, and nothing for an unconnected one. If `validate_inputs`
takes an input, ComfyUI does not check the range of that input. An error marks every input taken. Take few inputs, and
at least one that every prompt contains.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..acestep_core.config import MAX_SECONDS
from ..acestep_core.edit.regions import parse_regions, parse_time
from ..acestep_core.errors import AceStepError, RequestError
from ..acestep_core.lyrics.where import is_named

UNCONNECTED: Any = object()  # the default of a socket


def valid(check: Callable[..., object], *inputs: object) -> bool | str:
    """Return True, or the sentence that `check` raises."""
    try:
        check(*inputs)
    except AceStepError as error:
        return str(error)
    return True


def check_source(audio: object, vae: object, latent: object, alternative: str = "") -> None:
    """Raise RequestError if no source is connected, or audio without a VAE."""
    if audio is UNCONNECTED and latent is UNCONNECTED:
        raise RequestError(f"audio or latent: missing. Connect audio and vae, or a latent{alternative}.")
    if audio is not UNCONNECTED and vae is UNCONNECTED:
        raise RequestError("vae: missing. Connect the VAE of Load Model to encode the audio.")


def check_part(
    audio: object,
    vae: object,
    latent: object,
    start: float | None,
    end: float | None,
    more_ranges: str | None,
    mask: object,
    where: str | None = "",
    times: object = UNCONNECTED,
) -> None:
    """Check the source of an edit, and its ranges. A mask replaces them, and a latent may have one of its own."""
    check_source(audio, vae, latent)
    if mask is UNCONNECTED and (audio is not UNCONNECTED or latent is UNCONNECTED):
        replaced = where is None or where.strip()
        check_ranges(*((None, None) if replaced else (start, end)), more_ranges)
        check_where(where, times)


def check_where(where: str | None, times: object, *, may_be_time: bool = False) -> None:
    """Raise RequestError for seconds that are no range, and for names without times. A linked text is None.

    may_be_time: a single time is allowed as well.
    """
    if not where or not where.strip():
        return
    if is_named(where):
        if times is UNCONNECTED:
            raise RequestError(f"times: missing. Connect Lyric Times to find {where.strip()!r}, or give seconds.")
        return
    try:
        ranges = () if may_be_time and parse_time(where) is not None else parse_regions(where)
    except RequestError as error:
        raise RequestError(f"where: {error}.") from None
    for first, last in ranges:
        if last is not None and last <= first:
            raise RequestError(f"where: the end must be after the start, got {first:g}-{last:g}.")


def check_ranges(start: float | None, end: float | None, more_ranges: str | None) -> None:
    """Raise RequestError for seconds that are no range."""
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (math.isfinite(value) and 0 <= value <= MAX_SECONDS):
            raise RequestError(f"{name}: must be from 0 to {MAX_SECONDS} seconds, got {value:g}.")
    if start is not None and end and end <= start:
        raise RequestError(f"end: must be after start, got {start:g} to {end:g} seconds. 0 is the end of the song.")
    try:
        ranges = parse_regions(more_ranges or "")
    except RequestError as error:
        raise RequestError(f"more_ranges: {error}.") from None
    for first, last in ranges:
        if last is not None and last <= first:
            raise RequestError(f"more_ranges: the end must be after the start, got {first:g}-{last:g}.")
