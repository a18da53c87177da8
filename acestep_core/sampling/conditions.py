"""The rows that the diffusion transformer attends to, from text states and timbre references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..models.model import AceStepModel
    from ..text.encoder import TextCondition


def encode_conditions(
    network: AceStepModel,
    conditions: Sequence[TextCondition],
    device: torch.device | str,
    timbre: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Encode text states to rows [1, S, e] for the transformer. The network is ready to run on `device`.

    timbre: references [1, frames, 64], one row each. The transformer's attention averages them. Without references,
        silence is the only one.

    A condition that occurs several times is encoded once.
    """
    frames = network.config.timbre_fix_frame
    references = [fit_reference(latents, frames) for latents in timbre] if timbre else [network.silence(frames)]
    voices = torch.stack([latents.to(device, torch.float32) for latents in references], dim=1)
    encoded: dict[int, Tensor] = {}
    for condition in conditions:
        if id(condition) not in encoded:
            encoded[id(condition)] = network.encoder(condition.caption.to(device), condition.lyrics.to(device), voices)
    return [encoded[id(condition)] for condition in conditions]


def text_only_conditions(conditions: Sequence[TextCondition]) -> list[TextCondition]:
    """Return the same songs under the text2music instruction. All have `text_only` states."""
    changed = {id(each): replace(each, caption=cast(Tensor, each.text_only), text_only=None) for each in conditions}
    return [changed[id(each)] for each in conditions]


def fit_reference(latents: Tensor, frames: int) -> Tensor:
    """Fit a timbre reference [1, T, 64] to the trained length of the timbre encoder.

    A shorter reference is repeated. Of a longer one three pieces are used: the beginning, the frames after the first
    third, and the end.
    """
    if latents.shape[1] < frames:
        latents = latents.repeat(1, -(-frames // latents.shape[1]), 1)[:, :frames]
    if latents.shape[1] == frames:
        return latents
    piece, third = frames // 3, latents.shape[1] // 3
    last = frames - 2 * piece
    return torch.cat((latents[:, :piece], latents[:, third : third + piece], latents[:, -last:]), dim=1)
