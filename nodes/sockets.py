"""Our own sockets, for what ComfyUI has no type for, and what every node's schema shares."""

from __future__ import annotations

from typing import TypeVar

from comfy_api.latest import io

CATEGORY = "ACE-Step 1.5"
AUTO = "auto"

TextEncoderSocket = io.Custom("ACESTEP_TEXT_ENCODER")
SongSocket = io.Custom("ACESTEP_SONG")

AnyInput = TypeVar("AnyInput", bound=io.Input)


def advanced(widget: AnyInput) -> AnyInput:
    """Folds the widget away until the user asks for the advanced ones, where the frontend can."""
    widget.extra_dict = {**(widget.extra_dict or {}), "advanced": True}  # the keyword came after 0.3.75
    return widget
