"""Muon: momentum whose update is made orthogonal, for the matrices inside the layers.

As `torch.optim.Muon` (the same constants, its "match_rms_adamw" learning rate). That one always iterates in bfloat16,
which on a CPU that only emulates it takes six times as long as the whole rest of a training step. Here it is float32,
all matrices of one shape at once.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that draws singular values towards 1
ITERATIONS = 5
MOMENTUM = 0.95
FASTER = 2.5  # its learning rate here, of AdamW's beside it


def orthogonal(matrices: Tensor) -> Tensor:
    """`[N, a, b]` with all singular values brought near 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                made = orthogonal(torch.stack([self._momentum(parameter) for parameter in parameters]).float())
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, made.unbind(), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-size)

    def _momentum(self, parameter: Tensor) -> Tensor:
        """Nesterov's, of the gradient."""
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(buffer, MOMENTUM)
