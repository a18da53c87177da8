"""The turn between the core's latents [batch, frames, 64] and ComfyUI's LATENT, [batch, 64, frames] in a dict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..acestep_core.config import LATENT_CHANNELS
from ..acestep_core.errors import RequestError

if TYPE_CHECKING:
    from ..acestep_core.edit.edit import Edit

EDITS = "acestep_edit"  # for each run of items: the edit that they are, or None, and how many they are

Edits = Sequence[tuple["Edit | None", int]]


def to_latent(latents: torch.Tensor, edits: Edits = ()) -> dict:
    latent = {"samples": latents.movedim(-1, 1).contiguous(), "type": "audio"}
    if any(edit is not None for edit, _ in edits):
        latent[EDITS] = tuple(edits)
    return latent


def edits_of(latent: dict) -> Edits:
    """The edits of a latent's items. Other nodes may have taken items out, or have changed them: an edit that no longer
    fits is None."""
    edits, latents = latent.get(EDITS) or (), from_latent(latent)
    if sum(count for _, count in edits) != len(latents):
        alone = edits[0][0] if len(edits) == 1 and edits[0][0].items == 1 else None
        edits = [(alone, len(latents))]
    parts = latents.split([count for _, count in edits])
    return [
        (edit if edit is not None and holds_its_source(edit, part) else None, count)
        for part, (edit, count) in zip(parts, edits, strict=True)
    ]


def holds_its_source(edit: Edit, latents: torch.Tensor) -> bool:
    """Whether the frames that the edit keeps are still those of its source."""
    if not edit.keeps_source or latents.shape[1] != edit.frames:
        return False
    made = edit.generated().float()[:, None]
    reach = 2 * edit.crossfade_frames + 1
    kept = torch.nn.functional.max_pool1d(made, reach, 1, edit.crossfade_frames)[:, 0, :, None] == 0
    same = latents.cpu().float() == edit.source
    return bool((same | ~kept).all())


def from_latent(latent: dict) -> torch.Tensor:
    samples = latent["samples"]
    if samples.ndim != 3 or samples.shape[1] != LATENT_CHANNELS:
        raise RequestError(
            f"this latent is not a song: it has the shape {list(samples.shape)}, a song has [batch, {LATENT_CHANNELS}, "
            "frames]; connect one from Sample Song, Encode Audio or Empty Song"
        )
    return samples.movedim(1, -1)
