"""Linear layers that store their weight in another dtype than they compute in, and `ops` namespaces of them."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling

from .layers import Ops


class CastLinear(nn.Linear):
    """A Linear that casts its weight to its input's dtype and device at each use."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x), None if self.bias is None else self.bias.to(x))


class CastOps:
    """`ops` namespace for networks that store float16 weights but must compute in float32.

    The last MLP of the lyric encoder reaches about 5e5, beyond float16. The condition encoder runs once per song and
    thus computes in float32 as a whole.
    """

    compute_dtype = torch.float32
    Linear = CastLinear


class QuantizedLinear(nn.Linear):
    """A Linear that stores its weight in one byte a value, with a scale per row, and dequantises it at each use.

    It computes in the dtype of its input. Only one dequantised weight is in memory at a time.
    """

    scale: Tensor | None  # [rows, 1], float32

    def __init__(self, in_features: int, out_features: int, *, storage: torch.dtype, **options):
        super().__init__(in_features, out_features, **options)
        self.storage = storage
        self.register_buffer("scale", None, persistent=False)

    @torch.no_grad()
    def store(self, weight: Tensor) -> None:
        """Quantise and store a weight [rows, columns] of any floating dtype."""
        values, self.scale = quantize_rows(weight, self.storage)
        self.weight = nn.Parameter(values, requires_grad=False)

    def stored_weight(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the weight in its storage dtype, on any device, and the bias in the dtype of `like`."""
        return self.weight, None if self.bias is None else self.bias.to(like)

    def weight_and_bias(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `layers.weight_and_bias`."""
        values, bias = self.stored_weight(like)
        return dequantize(values, self.scale, like), bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.weight_and_bias(x))


def dequantize(values: Tensor, scale: Tensor | None, like: Tensor) -> Tensor:
    """Return `values * scale`, rounded once, to the dtype and device of `like`."""
    if scale is None:
        return values.to(like)
    scale = scale.to(like.device)
    if values.dtype == torch.int8 and values.device == like.device and not is_compiling():
        # One pass over memory, half of what casting first takes.
        return torch.mul(values, scale, out=torch.empty(values.shape, dtype=like.dtype, device=like.device))
    return values.to(like).mul_(scale)


def quantize_rows(weight: Tensor, storage: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a matrix as values in `storage` (int8 or float8_e4m3fn) and float32 scales [rows, 1].

    Scales of fp8 are powers of two, so that a weight that was fp8 before keeps its exact values.
    """
    weight = weight.float()
    tiny = torch.finfo(torch.float32).tiny  # for rows of zeros
    largest = weight.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    if storage == torch.int8:
        scale = (largest / 127).clamp_min(tiny)
        return (weight / scale).round_().to(storage), scale
    scale = torch.exp2((largest / torch.finfo(storage).max).log2().ceil()).clamp_min(tiny)
    return (weight / scale).to(storage), scale


def quantized_ops(storage: torch.dtype) -> Ops:
    """Return an `ops` namespace that quantises the matrices of the transformer layers, by far the largest part."""

    class QuantizedOps:
        Linear, Embedding, Conv1d, ConvTranspose1d = nn.Linear, nn.Embedding, nn.Conv1d, nn.ConvTranspose1d

        class layers:
            Linear = partial(QuantizedLinear, storage=storage)

    return QuantizedOps
