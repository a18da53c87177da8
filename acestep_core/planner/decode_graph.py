"""Running a step of the code loop: plainly, or recorded once and replayed as a CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch

from ..runtime.cuda_graphs import capture

log = logging.getLogger("acestep")

BUCKET = 256  # slots


def in_buckets(length: int, capacity: int) -> int:
    """How many of a cache's slots to look at for so many tokens: one of few numbers, as an accelerator pays for each:
    with a recording of the step, or with a plan for its attention (cuDNN's take up to half a second)."""
    return min(-(-length // BUCKET) * BUCKET, capacity)


class Recorded:
    """Runs a step that looks at `extent` slots.

    A step launches some five hundred kernels and takes most of its time to launch them; a recording is one launch. It
    first runs plainly whenever its extent changes, and is recorded the time after. Where recording fails it
    goes on plainly.
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
