"""A step of the transformer as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..graphs import recorded

Step = Callable[[Tensor, Tensor], Tensor]  # rows [N, T, 64] at times [N] to their velocities


@dataclass
class _Recording:
    given: tuple[Tensor, Tensor]
    result: Tensor | None = None
    graph: torch.cuda.CUDAGraph | None = None


class Recorded:
    """A step launches more than a thousand kernels, and in a short song waits for that more than for the kernels; a
    recording is one launch.

    For each number of rows the first step runs plainly, the second is recorded, and from then on it is replayed. Where
    recording fails, all go on plainly. A recording holds its own memory: that of one step.
    """

    def __init__(self, step: Step):
        self._step = step
        self._recordings: dict[int, _Recording | None] = {}
        self._works = True

    def __call__(self, x: Tensor, times: Tensor) -> Tensor:
        rows = len(x)
        if not self._works or rows not in self._recordings:
            self._recordings[rows] = None
            return self._step(x, times)
        if self._recordings[rows] is None:
            self._recordings[rows] = self._record(x, times)
        recording = self._recordings[rows]
        if recording is None:
            return self._step(x, times)
        for place, new in zip(recording.given, (x, times), strict=True):
            place.copy_(new)
        recording.graph.replay()
        return recording.result.clone()

    def _record(self, x: Tensor, times: Tensor) -> _Recording | None:
        recording = _Recording((x.clone(), times.clone()))

        def step() -> None:
            recording.result = self._step(*recording.given)

        recording.graph = recorded(step, "sample")
        self._works = recording.graph is not None
        return recording if self._works else None
