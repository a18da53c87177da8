"""Steps of the diffusion transformer as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..runtime.cuda_graphs import Pace, StepGraphs

NetworkStep = Callable[[Tensor, Tensor], Tensor]  # x [N, T, 64] at times [N] → velocities [N, T, 64]


class CapturedVelocity:
    """A network step with one CUDA graph for each number of rows.

    A step launches about a thousand kernels, and launching them takes longer than running them in a short song. A graph
    is one launch. All graphs together hold the memory of one step. `warn` gets a sentence if a capture fails.
    """

    def __init__(self, step: NetworkStep, device: torch.device, warn: Callable[[str], None]):
        self._step = step
        self._graphs = StepGraphs(device, warn)
        self._inputs: dict[int, tuple[Tensor, Tensor]] = {}
        self._pace = Pace(device)

    def __call__(self, x: Tensor, times: Tensor) -> Tensor:
        rows = len(x)
        if rows not in self._inputs:
            self._inputs[rows] = torch.empty_like(x), torch.empty_like(times)
        inputs = self._inputs[rows]
        for target, value in zip(inputs, (x, times), strict=True):
            target.copy_(value)
        result = self._graphs(rows, lambda: self._step(*inputs)).clone()
        self._pace()
        return result
