"""Muon, an optimiser with orthogonalised momentum, for the matrices of the layers.

The constants are those of `torch.optim.Muon` with "match_rms_adamw". `torch.optim.Muon` always iterates in bfloat16,
which is very slow on a CPU that emulates bfloat16. On such a CPU, the iteration here is in float32. It runs for all
matrices of one shape at once.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .loop import mixed

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the Newton-Schulz quintic
ITERATIONS = 5
MOMENTUM = 0.95
RATE_FACTOR = 2.5  # Muon's learning rate relative to AdamW's


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return `matrices` `[N, a, b]` with all singular values near 1."""
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
                momenta = torch.stack([self._momentum(parameter) for parameter in parameters]).float()
                with mixed(momenta.device):
                    updates = orthogonalize(momenta)
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates.unbind(), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-size)

    def _momentum(self, parameter: Tensor) -> Tensor:
        """Return the Nesterov momentum of the gradient."""
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(buffer, MOMENTUM)
