"""The conditions that ComfyUI's samplers carry for our network, and checks of what other nodes add to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ...acestep_core.errors import RequestError
from ...acestep_core.models.dit import Prepared
from ...acestep_core.models.model import AceStepModel

WINDOWS_KEY = "context_handler"  # in model_options, set by Context Windows
WINDOW_KEY = "context_window"  # in transformer_options, the window of the current call
TIME_AXIS = 2  # of latents [B, 64, T]


class SongCond:
    """One conditioning entry, prepared for the network at the first step.

    Has the methods of `comfy.conds.CONDRegular`. Entries are never concatenated: each has its own keys and values.

    encoded: [1, S, e]. context: [1 or B, T, 128]. context_of: returns the context for another number of frames.
    """

    def __init__(
        self, encoded: torch.Tensor, context: torch.Tensor, context_of: Callable[[int], torch.Tensor] | None = None
    ):
        self.encoded, self.context, self.context_of = encoded, context, context_of
        self._prepared: dict[tuple[AceStepModel, int], tuple[object, Prepared]] = {}
        self._areas: dict[tuple[int, int], SongCond] = {}

    def of_length(self, frames: int) -> SongCond:
        """Return the condition for a song of that many frames. Training mixes songs of several lengths."""
        if frames == self.context.shape[1]:
            return self
        assert self.context_of is not None
        return SongCond(self.encoded, self.context_of(frames), self.context_of)

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **_: object) -> SongCond:
        """Return the condition for `area`, (frames, first frame), or for the whole song."""
        if area is None:
            return self
        frames, first = area
        if (frames, first) not in self._areas:
            self._areas[frames, first] = SongCond(self.encoded, self.context[:, first : first + frames])
        return self._areas[frames, first]

    def can_concat(self, other: object) -> bool:
        return False

    def concat(self, others: Sequence[object]) -> SongCond:
        return self

    def size(self) -> list[int]:
        return list(self.encoded.shape)

    @property
    def is_new(self) -> bool:
        """True before the first step."""
        return not self._prepared

    def prepared(self, network: AceStepModel, batch: int, weights: object, device: torch.device) -> Prepared:
        """Return the step-independent part of the network's input for this batch size. The network is on `device`.

        `weights` identifies the state of weight hooks. A new state replaces the prepared tensors of the old one. While
        weights are trained, the tensors are computed again for each step, as its gradients need.
        """

        def prepare() -> Prepared:
            return network.decoder.prepare(self.context.expand(batch, -1, -1).to(device), self.encoded.to(device))

        if torch.is_grad_enabled():
            return prepare()
        key = network, batch  # MultiGPU runs a clone of the network on each GPU
        if key not in self._prepared or self._prepared[key][0] != weights:
            self._prepared.pop(key, None)  # free the old tensors first
            self._prepared[key] = weights, prepare()
        return self._prepared[key][1]

    def in_window(self, network: AceStepModel, whole: Prepared, window: Any, retained: Sequence[int] = ()) -> Prepared:
        """Return `whole` cut to a context window: any frames in any order, `retained` ones from the song's start.

        Keys and values of the text are shared. The rest is small and not cached, because windows may move every step.
        """
        options = {"retain_index_list": retained} if retained else {}  # earlier ComfyUIs lack the parameter
        context = window.get_tensor(self.context, dim=1, **options)
        own = network.decoder.prepare(context.expand(len(whole.patches), -1, -1), self.encoded[:, :1])
        return replace(own, cross=whole.cross, mask=whole.mask)


def check_sigmas(sigmas: torch.Tensor) -> None:
    """Raise RequestError for empty sigmas and those of other models. Some shifts round to slightly above 1."""
    if not len(sigmas):
        raise RequestError("sigmas: empty, as a scheduler gives them for a denoise of 0. Raise the denoise.")
    if sigmas.max() > 1.001:
        raise RequestError(
            f"sigmas: {sigmas.max():.4g} is above 1, so they belong to another model. Connect BasicScheduler, and "
            "remove nodes for other models before it."
        )


def check_windows(handler: object | None, entry: Mapping[str, Any]) -> None:
    """Raise RequestError for Context Windows that do not cut the song along its time."""
    if handler is None:
        return
    dim = getattr(handler, "dim", TIME_AXIS)
    if dim != TIME_AXIS:
        raise RequestError(f"dim of Context Windows: must be {TIME_AXIS}, the time of a song, got {dim}.")
    if not {"area", "mask"}.isdisjoint(entry):
        raise RequestError("conditioning: area and mask do not work with Context Windows. Remove one of them.")
