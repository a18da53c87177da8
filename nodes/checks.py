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
from ..acestep_core.edit.regions import parse_regions
from ..acestep_core.errors import AceStepError, RequestError

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
) -> None:
    """Check the source of an edit, and its ranges. A mask replaces them, and a latent may have one of its own."""
    check_source(audio, vae, latent)
    if mask is UNCONNECTED and (audio is not UNCONNECTED or latent is UNCONNECTED):
        check_ranges(start, end, more_ranges)


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
