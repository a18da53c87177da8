"""Snake, Oobleck's activation, on CUDA in one kernel.

Operation by operation it goes five times through the memory, and there is one before each convolution: on a GPU that is
most of a decode (`benchmarks/floor.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

log = logging.getLogger("acestep")

# Compiled by torch at its first use, with the compiler that comes with CUDA; float16 is computed in float32.
SOURCE = """
template <typename T> T snake(T x, T frequency, T strength) {
    T wave = sin(x * frequency);
    return x + wave * wave * strength;
}
"""
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


class Snake(nn.Module):
    """x + sin(a x)^2 / b with a = exp(alpha), b = exp(beta) per channel."""

    def __init__(self, channels: int, device, dtype):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1, channels, 1, device=device, dtype=dtype))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        frequency = self.alpha.float().exp().to(x)
        strength = (self.beta.float().exp() + 1e-9).reciprocal().to(x)
        return pick(x)(x, frequency, strength)


def pick(x: Tensor) -> Kernel:
    """The one kernel where there is one; it knows no gradients, and torch's compiler makes its own."""
    if x.device.type != "cuda" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return stepwise
    return kernel(x.device, x.dtype) or stepwise


def stepwise(x: Tensor, frequency: Tensor, strength: Tensor) -> Tensor:
    """x + sin(frequency x)^2 strength."""
    # In place after the first product: at this size a fresh buffer costs more than the arithmetic.
    return (x * frequency).sin_().square_().mul_(strength).add_(x)


@cache
def kernel(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """The same in one pass, or None where this torch cannot make it or it does not give the same."""
    x = torch.linspace(-9, 9, 3 * 1024).view(1, 3, -1).to(dtype)
    frequency, strength = (torch.tensor(row, dtype=dtype).view(1, 3, 1) for row in ((0.5, 1.0, 4.0), (2.0, 1.0, 0.125)))
    wanted = stepwise(x.double(), frequency.double(), strength.double())
    try:
        made = torch.cuda.jiterator._create_jit_fn(SOURCE)
        got = made(x.to(device), frequency.to(device), strength.to(device))
        # Up to 11 it is, where a step between two numbers is 8 eps.
        torch.testing.assert_close(got.cpu().double(), wanted, rtol=0, atol=10 * torch.finfo(dtype).eps)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever else it is, there is another way
        log.info("%s: Snake goes operation by operation in %s (%s)", device, dtype, error)
        return None
    return made
