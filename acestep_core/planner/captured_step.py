"""Run a step of the code loop directly, or capture it once and replay it as a CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch

from ..runtime.cuda_graphs import capture

log = logging.getLogger("acestep")

SLOT_MULTIPLE = 256


def round_up_slots(length: int, capacity: int) -> int:
    """Round the length of the KV cache up to a multiple of 256, so that few shapes occur.

    A new shape takes up to half a second: a CUDA graph is captured, or cuDNN plans its attention.
    """
    return min(-(-length // SLOT_MULTIPLE) * SLOT_MULTIPLE, capacity)


class CapturedStep:
    """A step over `extent` slots of the KV cache that becomes a CUDA graph.

    A step launches about 500 kernels, and launching them takes most of its time; a graph is one launch. The first step
    with a new extent runs directly, and the second one is captured. If capturing fails, all steps run directly.
    """

    def __init__(self, step: Callable[[int], None], device: torch.device):
        self._step = step
        self._device = device
        self._extent = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._works = True

    def __call__(self, extent: int) -> None:
        if not self._works or extent != self._extent:
            self._extent, self._graph = extent, None
            self._step(extent)
            return
        if self._graph is None:
            self._graph = capture(partial(self._step, extent), self._device, log.info)
            self._works = self._graph is not None
        if self._graph is None:
            self._step(extent)
        else:
            self._graph.replay()
