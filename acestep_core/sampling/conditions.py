"""The rows that the diffusion transformer attends to, made of text states and timbre references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import RequestError

if TYPE_CHECKING:
    from ..models.model import AceStepModel
    from ..text.encoder import TextCondition


def encode_conditions(
    network: AceStepModel,
    conditions: Sequence[TextCondition],
    device: torch.device | str,
    timbre: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Text states as the rows `[1, S, e]` that the transformer attends to; `network` is ready to run on `device`.

    A condition is encoded once however often it occurs. `timbre` holds references `[1, frames, 64]`; each becomes a row
    of its own, and the transformer's attention averages them. Without any, silence stands in for one.
    """
    frames = network.config.timbre_fix_frame
    heard = [fit_reference(latents, frames) for latents in timbre] if timbre else [network.silence(frames)]
    voices = torch.stack([latents.to(device, torch.float32) for latents in heard], dim=1)
    known: dict[int, Tensor] = {}
    for condition in conditions:
        if id(condition) not in known:
            known[id(condition)] = network.encoder(condition.caption.to(device), condition.lyrics.to(device), voices)
    return [known[id(condition)] for condition in conditions]


def plain_conditions(conditions: Sequence[TextCondition]) -> list[TextCondition]:
    """The same songs under the instruction of a song from text alone."""
    if any(condition.text_only is None for condition in conditions):
        raise RequestError(
            "this edit lets go of its source on the way (strength below 1, or blend), for which the song must be "
            "encoded with the edit's task"
        )
    known = {id(condition): replace(condition, caption=condition.text_only, text_only=None) for condition in conditions}
    return [known[id(condition)] for condition in conditions]


def check_references(timbre: Sequence[Tensor], channels: int) -> None:
    """Raises RequestError for what is no timbre reference."""
    if isinstance(timbre, Tensor):
        raise RequestError("timbre references are a list of latents, each of one recording, got a tensor")
    for latents in timbre:
        if not isinstance(latents, Tensor) or latents.ndim != 3 or 0 in latents.shape or latents.shape[2] != channels:
            given = list(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
            raise RequestError(f"a timbre reference must be latents [1, frames, {channels}], got {given}")
        if len(latents) != 1:
            raise RequestError(
                f"a timbre reference is one recording, got a batch of {len(latents)}: give them one by one"
            )
        if not torch.isfinite(latents).all() or not latents.count_nonzero():
            raise RequestError("a timbre reference is empty, or holds NaN or infinity")


def fit_reference(latents: Tensor, frames: int) -> Tensor:
    """A reference `[1, T, 64]` of the length that the timbre encoder was trained with.

    A shorter one is repeated; of a longer one the beginning, what follows its first third, and its end are heard.
    """
    if latents.shape[1] < frames:
        latents = latents.repeat(1, -(-frames // latents.shape[1]), 1)[:, :frames]
    if latents.shape[1] == frames:
        return latents
    piece, third = frames // 3, latents.shape[1] // 3
    last = frames - 2 * piece
    return torch.cat((latents[:, :piece], latents[:, third : third + piece], latents[:, -last:]), dim=1)
