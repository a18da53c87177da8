"""Snake, Oobleck's activation, with one fused kernel on CUDA.

The eager kernel passes over memory five times, before every convolution. On a GPU this is most of a decode.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

log = logging.getLogger("acestep")

# torch compiles this source at its first use, with the compiler that CUDA includes. float16 is computed in float32.
SOURCE = """
template <typename T> T snake(T x, T frequency, T strength) {
    T wave = sin(x * frequency);
    return x + wave * wave * strength;
}
"""
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


class Snake(nn.Module):
    """x + sin(a x)^2 / b with a = exp(alpha), b = exp(beta) per channel. x: [B, C, N]."""

    def __init__(self, channels: int, device, dtype):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1, channels, 1, device=device, dtype=dtype))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        frequency = self.alpha.float().exp().to(x)
        strength = (self.beta.float().exp() + 1e-9).reciprocal().to(x)
        return _kernel_for(x)(x, frequency, strength)


def _kernel_for(x: Tensor) -> Kernel:
    # The fused kernel has no gradient, and torch.compile fuses the eager one by itself.
    if x.device.type != "cuda" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return eager_snake
    return fused_snake(x.device, x.dtype) or eager_snake


def eager_snake(x: Tensor, frequency: Tensor, strength: Tensor) -> Tensor:
    """Return x + sin(frequency x)^2 strength."""
    # In place after the first product: at this size a new buffer costs more than the arithmetic.
    return (x * frequency).sin_().square_().mul_(strength).add_(x)


@cache
def fused_snake(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """Compile `eager_snake` as one kernel. Return None if compilation fails or the result differs."""
    x = torch.linspace(-9, 9, 3 * 1024).view(1, 3, -1).to(dtype)
    frequency, strength = (torch.tensor(row, dtype=dtype).view(1, 3, 1) for row in ((0.5, 1.0, 4.0), (2.0, 1.0, 0.125)))
    expected = eager_snake(x.double(), frequency.double(), strength.double())
    try:
        compiled: Kernel = torch.cuda.jiterator._create_jit_fn(SOURCE)

        def fused(x: Tensor, frequency: Tensor, strength: Tensor) -> Tensor:
            with torch.cuda.device(device):  # the private function launches on the current device
                return compiled(x, frequency, strength)

        result = fused(x.to(device), frequency.to(device), strength.to(device))
        # Values reach 11, where neighbouring numbers are 8 eps apart.
        torch.testing.assert_close(result.cpu().double(), expected, rtol=0, atol=10 * torch.finfo(dtype).eps)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # any other failure leaves the eager kernel
        log.info("Snake: no fused kernel on %s in %s (%s)", device, dtype, error)
        return None
    return fused
