"""Layers that compute in the dtype of their input, whatever their weights are stored in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Ops


class CastLinear(nn.Linear):
    """A Linear whose weight is cast to its input's dtype and device at use."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x)
        return F.linear(x, self.weight.to(x), bias)


class CastOps:
    """`ops` namespace for networks that keep float16 weights but must compute in float32.

    The last MLP of the lyric encoder reaches about 5e5, beyond float16. The condition encoder runs once per song, so it
    computes in float32 as a whole.
    """

    compute_dtype = torch.float32
    Linear = CastLinear


class StoredLinear(nn.Linear):
    """A Linear whose weight is kept in one byte a value, with a factor for each row, and restored at each use.

    It computes in the dtype of its input: only the weight is rounded, and of the restored weights one is in memory.
    """

    storage: torch.dtype

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)
        self.register_buffer("scale", None, persistent=False)  # [rows, 1], float32

    @torch.no_grad()
    def store(self, weight: Tensor) -> None:
        """Takes a weight [rows, columns] of any floating dtype."""
        values, self.scale = stored(weight, self.storage)
        self.weight = nn.Parameter(values, requires_grad=False)

    def weight_and_bias(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `layers.weight_and_bias`."""
        return self.restored(self.weight, like), None if self.bias is None else self.bias.to(like)

    def restored(self, values: Tensor, like: Tensor) -> Tensor:
        """The weight that `values` stand for. Any is exact in bfloat16 and float16: it is rounded once, at the end."""
        weight = values.to(like)  # a copy, because of the dtype
        return weight if self.scale is None else weight.mul_(self.scale.to(like.device))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.weight_and_bias(x))


def stored(weight: Tensor, storage: torch.dtype) -> tuple[Tensor, Tensor]:
    """A matrix as values of `storage` (int8 or float8_e4m3fn) and factors [rows, 1], so that their product is near it.

    Factors of fp8 are powers of two: its own exponents do the rest, and a weight that was fp8 already stays as it is.
    """
    weight = weight.float()
    tiny = torch.finfo(torch.float32).tiny  # for rows of zeros
    largest = weight.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    if storage == torch.int8:
        scale = (largest / 127).clamp_min(tiny)
        return (weight / scale).round_().to(storage), scale
    scale = torch.exp2((largest / torch.finfo(storage).max).log2().ceil()).clamp_min(tiny)
    return (weight / scale).to(storage), scale


def stored_ops(kept: torch.dtype) -> Ops:
    """`ops` namespace whose transformer layers, by far the largest part, keep their matrices in `kept`."""

    class Layers:
        class Linear(StoredLinear):
            storage = kept

    class StoredOps:
        Linear, Embedding, Conv1d, ConvTranspose1d = nn.Linear, nn.Embedding, nn.Conv1d, nn.ConvTranspose1d
        layers = Layers

    return StoredOps
