"""Steps of the diffusion transformer as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..runtime.cuda_graphs import Pace, capture

NetworkStep = Callable[[Tensor, Tensor], Tensor]  # x [N, T, 64] at times [N] → velocities [N, T, 64]


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, Tensor]
    result: Tensor


class CapturedVelocity:
    """A network step that is captured as a CUDA graph and replayed.

    A step launches about a thousand kernels, and launching them takes longer than running them in a short song. A
    graph is one launch.

    For each number of rows the first step runs as it is, the second is captured and all later ones are replayed. If a
    capture fails, steps run as they are and `warn` gets a sentence. A graph holds the memory of one step.
    """

    def __init__(self, step: NetworkStep, device: torch.device, warn: Callable[[str], None]):
        self._step, self._device, self._warn = step, device, warn
        self._captured: dict[int, _Captured] = {}
        self._warm: set[int] = set()
        self._works = True
        self._pace = Pace(device)

    def __call__(self, x: Tensor, times: Tensor) -> Tensor:
        rows = len(x)
        if rows not in self._captured and rows in self._warm and self._works:
            self._capture(x, times)
        captured = self._captured.get(rows)
        if captured is None:
            self._warm.add(rows)
            return self._step(x, times)
        for target, value in zip(captured.inputs, (x, times), strict=True):
            target.copy_(value)
        captured.graph.replay()
        self._pace()
        return captured.result.clone()

    def _capture(self, x: Tensor, times: Tensor) -> None:
        inputs = (x.clone(), times.clone())
        results: list[Tensor] = []
        graph = capture(lambda: results.append(self._step(*inputs)), self._device, self._warn)
        if graph is None:
            self._works = False
        else:
            self._captured[len(x)] = _Captured(graph, inputs, results[0])
