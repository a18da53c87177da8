"""ComfyUI's CONDITIONING, as its own ACE-Step 1.5 has it, plus the song it was made from."""

from __future__ import annotations

import logging
from typing import Any

import torch

from ..acestep_core.errors import RequestError
from ..acestep_core.song import Song
from ..acestep_core.text.encoder import TextCondition

log = logging.getLogger("acestep")

SONG = "acestep_song"
LYRICS = "conditioning_lyrics"

# What ComfyUI's nodes may add to an entry and only its own samplers act on.
KSAMPLER_ONLY = {"area", "control", "end_percent", "hooks", "mask", "start_percent", "strength"}

Conditioning = list[list[Any]]  # entries of [caption states [1, L, 1024], dict]


def to_conditioning(text: TextCondition, song: Song, device: torch.device) -> Conditioning:
    return [[text.caption.to(device), {LYRICS: text.lyrics.to(device), SONG: song}]]


def text_condition(caption: torch.Tensor | None, lyrics: torch.Tensor | None, width: int) -> TextCondition:
    """What an entry holds, ours or ComfyUI's own; `width` is the model's. Raises RequestError for any other kind."""
    if any(states is None or len(states) != 1 or states.shape[-1] != width for states in (caption, lyrics)):
        raise RequestError(
            "this conditioning was not made for this model: connect the one from Encode Song, with the text encoder of "
            "the same Load Model"
        )
    return TextCondition(caption, lyrics, caption_prompt="", lyric_prompt="")


def condition_rows(caption: torch.Tensor, lyrics: torch.Tensor) -> int:
    """How many rows the network attends to: caption, lyrics and one of timbre."""
    return caption.shape[1] + lyrics.shape[1] + 1


def only_entry(conditioning: Conditioning) -> tuple[torch.Tensor, torch.Tensor | None, Song | None]:
    """Caption states, lyric embeddings and song of a CONDITIONING with a single entry. Only Encode Song adds a song."""
    if len(conditioning) != 1:
        raise RequestError(f"Sample Song takes one song, got {len(conditioning)} combined ones; KSampler can mix them")
    caption, data = conditioning[0]
    unheard = sorted(KSAMPLER_ONLY & data.keys())
    if unheard:
        log.warning("Sample Song does not follow %s of its conditioning; KSampler does", ", ".join(unheard))
    if caption is not None and not caption.count_nonzero():
        raise RequestError("this conditioning is empty: Sample Song makes the unconditional half of guidance by itself")
    return caption, data.get(LYRICS), data.get(SONG)
