"""One conditioning entry as ComfyUI's samplers carry it, whole or in part."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ...acestep_core.errors import RequestError
from ...acestep_core.models.dit import Prepared
from ...acestep_core.models.model import AceStepModel

WINDOWS = "context_handler"  # what ComfyUI's Context Windows put on a model: it cuts a song's time into windows
WINDOW = "context_window"  # the one that is being made
TIME = 2  # axis of latents [B, 64, T]


class SongCondition:
    """Encoded once, prepared for the network at the first step.

    Has the methods of `comfy.conds.CONDRegular`. Entries never share a batch: each has keys and values of its own.
    """

    def __init__(self, encoded: torch.Tensor, context: torch.Tensor, said: Collection[str] = ()):
        self.encoded = encoded  # [1, S, e]
        self.context = context  # [1 or B, T, 128]
        self.said = set(said)  # what has no effect on this sampling, as the user knows by now
        self._prepared: dict[int, tuple[object, Prepared]] = {}
        self._parts: dict[tuple[int, int], SongCondition] = {}

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **_: object) -> SongCondition:
        """This condition for `area` (frames, first frame) of the song alone, or for all of it."""
        if area is None:
            return self
        frames, first = area
        if (frames, first) not in self._parts:
            part = SongCondition(self.encoded, self.context[:, first : first + frames], self.said)
            self._parts[frames, first] = part
        return self._parts[frames, first]

    def can_concat(self, other: object) -> bool:
        return False

    def concat(self, others: Sequence[object]) -> SongCondition:
        return self

    def size(self) -> list[int]:
        return list(self.encoded.shape)

    @property
    def begun(self) -> bool:
        """Whether a step has been made with it."""
        return bool(self._prepared)

    def prepared(self, network: AceStepModel, batch: int, weights: object) -> Prepared:
        """`weights` tells apart the states of a network whose weights hooks change between steps. Of each batch size
        only the latest is kept."""
        if batch not in self._prepared or self._prepared[batch][0] != weights:
            self._prepared.pop(batch, None)  # gone before there is another
            made = network.decoder.prepare(self.context.expand(batch, -1, -1), self.encoded)
            self._prepared[batch] = weights, made
        return self._prepared[batch][1]

    def in_window(self, network: AceStepModel, whole: Prepared, window: Any, kept: Sequence[int] = ()) -> Prepared:
        """`whole`, which is for all of the song, for a window of ComfyUI's: any frames in any order. Its frames `kept`
        come from the song's first ones.

        Keys and values of the words are the same for every window. What is made anew is small, and not kept, as some
        schedules have other windows at every step.
        """
        retained = {"retain_index_list": kept} if kept else {}  # not known to the windows of earlier ComfyUIs
        context = window.get_tensor(self.context, dim=1, **retained)
        own = network.decoder.prepare(context.expand(len(whole.patches), -1, -1), self.encoded[:, :1])
        return replace(own, cross=whole.cross, mask=whole.mask)


def check_sigmas(sigmas: torch.Tensor) -> None:
    """Refuses the noise levels of other models. A little above 1 is rounding, which some shifts make."""
    if sigmas.max() > 1.001:
        raise RequestError(
            f"sigmas lie between 0 and 1 for this model, got {sigmas.max():.4g}: the scheduler, or a node in front of "
            "the model, is for others; connect BasicScheduler"
        )


def check_windows(handler: object | None, entry: Mapping[str, Any]) -> None:
    """Refuses Context Windows of which ComfyUI would make another song than asked for, or none."""
    if handler is None:
        return
    if getattr(handler, "dim", TIME) != TIME:
        raise RequestError(f"Context Windows would not cut this song along its time: set its dim to {TIME}")
    if not {"area", "mask"}.isdisjoint(entry):
        raise RequestError(
            "Context Windows do not go with an area or a mask of the conditioning, which are for the whole song: "
            "remove the one or the other"
        )
