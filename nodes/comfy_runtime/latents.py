"""Convert between the core's latents [batch, frames, 64] and ComfyUI's LATENT, [batch, 64, frames] in a dict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...acestep_core.config import LATENT_CHANNELS
from ...acestep_core.errors import RequestError

if TYPE_CHECKING:
    from ...acestep_core.edit.edit import Edit

EDITS_KEY = "acestep_edit"

EditRuns = Sequence[tuple["Edit | None", int]]  # for each run of items: their edit, and their number


def to_latent(latents: torch.Tensor, edits: EditRuns = ()) -> dict:
    latent = {"samples": latents.movedim(-1, 1).contiguous(), "type": "audio"}
    if any(edit is not None for edit, _ in edits):
        latent[EDITS_KEY] = tuple(edits)
    return latent


def from_latent(latent: dict) -> torch.Tensor:
    check_samples(latent["samples"])
    return latent["samples"].movedim(1, -1)


def check_samples(samples: torch.Tensor) -> None:
    """Raise RequestError unless `samples` are [batch, 64, frames]."""
    if samples.ndim != 3 or samples.shape[1] != LATENT_CHANNELS:
        raise RequestError(
            f"latent: the shape {list(samples.shape)} is not that of a song, [batch, {LATENT_CHANNELS}, frames]. "
            "Connect Sample Song, Encode Audio or Empty Song."
        )


def edits_of(latent: dict) -> EditRuns:
    """Return the edits of a latent's items. An edit is None if another node changed its items."""
    edits: EditRuns = latent.get(EDITS_KEY) or ()
    latents = from_latent(latent)
    if sum(count for _, count in edits) != len(latents):  # another node removed or repeated items
        edit = edits[0][0] if len(edits) == 1 else None
        edits = [(edit if edit is not None and edit.items == 1 else None, len(latents))]
    parts = latents.split([count for _, count in edits])
    return [
        (edit if edit is not None and _has_source(edit, part) else None, count)
        for part, (edit, count) in zip(parts, edits, strict=True)
    ]


def select_items(latent: dict, items: Sequence[int]) -> dict:
    """Return a LATENT of these items, in this order, each with its edit."""
    count = len(latent["samples"])
    edits = [edit and edit.of_item(i) for edit, run in edits_of(latent) for i in range(run)]
    chosen = {**latent, **to_latent(from_latent(latent)[list(items)], [(edits[i], 1) for i in items])}
    if all(edits[i] is None for i in items):
        chosen.pop(EDITS_KEY, None)
    mask = latent.get("noise_mask")
    if mask is not None and len(mask) == count:
        chosen["noise_mask"] = mask[list(items)]
    if len(latent.get("batch_index", ())) == count:  # as of LatentFromBatch
        chosen["batch_index"] = [latent["batch_index"][i] for i in items]
    return chosen


def _has_source(edit: Edit, latents: torch.Tensor) -> bool:
    """Return True if the frames that the edit keeps are those of its source."""
    if not edit.keeps_source or latents.shape[1] != edit.frames:
        return False
    generated = edit.generated_mask().float()[:, None]
    window = 2 * edit.crossfade_frames + 1
    outside = torch.nn.functional.max_pool1d(generated, window, 1, edit.crossfade_frames)[:, 0, :, None] == 0
    same = latents.cpu().float() == edit.source
    return bool((same | ~outside).all())
