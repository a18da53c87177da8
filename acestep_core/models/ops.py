"""Layers that compute in the dtype of their input, whatever their weights are stored in, by the faster of torch's
libraries."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling

from .layers import Ops

FEW_ROWS = 128  # up to so many, reading a weight takes the time on a CPU, not multiplying it
PIECE = 2**20  # numbers of a weight that stay in the cache until they have been multiplied


def _onednn() -> Callable[..., Tensor] | None:
    """oneDNN's product, where it is faster than MKL's, which torch takes in float32: measured on AMD's processors, see
    benchmarks/README.md. On Intel's it has not been, and torch's choice stays."""
    try:
        vendor = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        vendor = platform.processor()  # the vendor's name is in it on Windows
    if "AuthenticAMD" not in vendor or not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return None
    # Torch's own name for the product that its compiler uses. It takes a weight as it is, without a reordered copy.
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


ONEDNN = _onednn()


def fast_products() -> bool:
    """Whether `linear` multiplies by oneDNN."""
    return ONEDNN is not None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear, in float32 on a CPU by the faster of torch's two libraries."""
    if (
        ONEDNN is None
        or x.device.type != "cpu"
        or weight.device.type != "cpu"
        or not x.dtype == weight.dtype == torch.float32
        or not x.numel()
        or (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)))
    ):
        return F.linear(x, weight, bias)
    if x.numel() == 2 * x.shape[-1] and weight.numel() > PIECE:  # a weight is read twice by one row faster than by two
        rows = [ONEDNN(row, weight, bias, "none", [], "") for row in x.reshape(2, -1).split(1)]
        return torch.cat(rows).view(*x.shape[:-1], -1)
    return ONEDNN(x, weight, bias, "none", [], "")


class Linear(nn.Linear):
    """nn.Linear, by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class PlainOps:
    """`ops` namespace for networks whose weights are in the dtype and on the device that they compute in."""

    Linear, Embedding, Conv1d, ConvTranspose1d = Linear, nn.Embedding, nn.Conv1d, nn.ConvTranspose1d


class CastLinear(nn.Linear):
    """A Linear whose weight is cast to its input's dtype and device at use."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x)
        return linear(x, self.weight.to(x), bias)


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

    def kept(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """The weight as it is stored, wherever that is, and the bias as `like` is."""
        return self.weight, None if self.bias is None else self.bias.to(like)

    def weight_and_bias(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `layers.weight_and_bias`."""
        values, bias = self.kept(like)
        return _restored(values, self.scale, like), bias

    def forward(self, x: Tensor) -> Tensor:
        values, bias = self.kept(x)
        rows = max(1, PIECE // values.shape[1])
        few = x.device.type == "cpu" and x.numel() <= FEW_ROWS * x.shape[-1]
        if not few or self.scale is None or len(values) <= rows:
            return linear(x, _restored(values, self.scale, x), bias)
        pieces = zip(values.split(rows), self.scale.split(rows), strict=True)
        out = torch.cat([linear(x, _restored(piece, scale, x)) for piece, scale in pieces], dim=-1)
        return out if bias is None else out.add_(bias)


def _restored(values: Tensor, scale: Tensor | None, like: Tensor) -> Tensor:
    """The weight that `values` stand for, rounded once, at the end: they are exact in any dtype they go through."""
    if scale is None:
        return values.to(like)  # a copy, because of the dtype
    if values.device.type == like.device.type == "cpu":  # where float32 is what is multiplied and cast fastest
        if values.dtype == torch.float8_e4m3fn:
            values, scale = _256th(values), 256 * scale
        return values.float().mul_(scale).to(like.dtype)
    scale = scale.to(like.device)
    if values.dtype == torch.int8 and values.device == like.device and not is_compiling():
        # Half of the way through memory that casting first takes.
        return torch.mul(values, scale, out=torch.empty(values.shape, dtype=like.dtype, device=like.device))
    return values.to(like).mul_(scale)


def _256th(values: Tensor) -> Tensor:
    """fp8 (e4m3fn) divided by 256, in float16, exact; torch's own cast takes twenty times as long on a CPU.

    The bits are the same ones in both, exponents being 8 apart: sign, then those of the exponent and the mantissa, here
    with a zero between them. Only NaN, which no stored weight is, would become a number.
    """
    bits = values.view(torch.int8).to(torch.int16).bitwise_left_shift_(7)  # the sign comes twice
    return bits.bitwise_and_(~(1 << 14)).view(torch.float16)


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

    class StoredOps(PlainOps):
        layers = Layers

    return StoredOps
