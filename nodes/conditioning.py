"""ComfyUI's CONDITIONING, as its own ACE-Step 1.5 has it, plus the song it was made from."""

from __future__ import annotations

from typing import Any

import torch

from ..acestep_core.errors import RequestError
from ..acestep_core.song import Song
from ..acestep_core.text.encoder import TextCondition

SONG = "acestep_song"
LYRICS = "conditioning_lyrics"

Conditioning = list[list[Any]]  # entries of [caption states [1, L, 1024], dict]


def to_conditioning(text: TextCondition, song: Song, device: torch.device) -> Conditioning:
    return [[text.caption.to(device), {LYRICS: text.lyrics.to(device), SONG: song}]]


def text_condition(caption: torch.Tensor, lyrics: torch.Tensor | None, width: int) -> TextCondition:
    """What an entry holds, ours or ComfyUI's own; `width` is the model's. Raises RequestError for any other kind."""
    if lyrics is None or caption.shape[-1] != width or lyrics.shape[-1] != width:
        raise RequestError(
            "this conditioning was not made for this model: connect the one from Encode Song, with the text encoder of "
            "the same Load Model"
        )
    return TextCondition(caption, lyrics, caption_prompt="", lyric_prompt="")


def only_entry(conditioning: Conditioning) -> tuple[torch.Tensor, torch.Tensor | None, Song]:
    """Caption states, lyric embeddings and song of a CONDITIONING with a single entry that came from Encode Song."""
    if len(conditioning) != 1:
        raise RequestError(f"Sample Song takes one song, got {len(conditioning)} combined ones; KSampler can mix them")
    caption, data = conditioning[0]
    if SONG not in data:
        raise RequestError("this conditioning does not say how long the song is: connect the one from Encode Song")
    if not caption.count_nonzero():
        raise RequestError("this conditioning is empty: Sample Song makes the unconditional half of guidance by itself")
    return caption, data.get(LYRICS), data[SONG]
