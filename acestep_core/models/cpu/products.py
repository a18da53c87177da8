"""Matrix products on a CPU, by the faster of torch's two libraries, and the linear layers that use them."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling

from ..layers import TiedHead, weight_and_bias
from ..ops import QuantizedLinear, dequantize

FEW_ROWS = 128  # up to this number of rows, reading a weight takes longer than multiplying it
PIECE = 2**20  # values of a weight that stay in the cache until they are multiplied


def _onednn() -> Callable[..., Tensor] | None:
    """Return oneDNN's product on AMD processors, where it is faster than torch's choice in float32, MKL's.

    See benchmarks/README.md. On Intel processors, which are not measured, torch's choice stays.
    """
    try:
        vendor = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        vendor = platform.processor()  # contains the vendor's name on Windows
    if "AuthenticAMD" not in vendor or not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return None
    # The operator that torch's compiler uses. It takes a weight as it is, without a reordered copy. As it is private, a
    # torch may lack it, or have another one of this name.
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    x, weight, bias = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3), torch.arange(4.0)
    try:
        works = operator is not None and torch.equal(
            operator(x, weight, bias, "none", [], ""), torch.addmm(bias, x, weight.t())
        )
    except Exception:  # whatever a changed operator raises
        works = False
    return operator if works else None


ONEDNN = _onednn()


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute F.linear, by oneDNN if that is faster (float32 on a CPU without gradients)."""
    if (
        ONEDNN is None
        or x.device.type != "cpu"
        or weight.device.type != "cpu"
        or not x.dtype == weight.dtype == torch.float32
        or not x.numel()
        or (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)))
    ):
        return F.linear(x, weight, bias)
    if x.numel() == 2 * x.shape[-1] and weight.numel() > PIECE:  # two products of one row are faster than one of two
        rows = [ONEDNN(row, weight, bias, "none", [], "") for row in x.reshape(2, -1).split(1)]
        return torch.cat(rows).view(*x.shape[:-1], -1)
    return ONEDNN(x, weight, bias, "none", [], "")


class CpuLinear(nn.Linear):
    """A Linear that multiplies by `product`."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or is_compiling():
            return super().forward(x)
        return product(x, *weight_and_bias(self, x))


class CpuTiedHead(TiedHead):
    """A TiedHead that multiplies by `product`."""

    def forward(self, hidden: Tensor, rows: Tensor) -> Tensor:
        return product(hidden, rows)


class CpuQuantizedLinear(QuantizedLinear):
    """A QuantizedLinear that dequantises and multiplies its weight piece by piece if the input has few rows.

    Each piece stays in the cache between the two steps.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or self.scale is None:
            return super().forward(x)
        values, bias = self.stored_weight(x)
        piece_rows = max(1, PIECE // values.shape[1])
        if x.numel() > FEW_ROWS * x.shape[-1] or len(values) <= piece_rows:
            return product(x, cpu_dequantize(values, self.scale, x), bias)
        pieces = zip(values.split(piece_rows), self.scale.split(piece_rows), strict=True)
        out = torch.cat([product(x, cpu_dequantize(piece, scale, x)) for piece, scale in pieces], dim=-1)
        return out if bias is None else out.add_(bias)


def cpu_dequantize(values: Tensor, scale: Tensor, like: Tensor) -> Tensor:
    """`dequantize` by way of float32, which a CPU multiplies and casts fastest. The results are the same."""
    if values.device.type != "cpu":
        return dequantize(values, scale, like)
    if values.dtype == torch.float8_e4m3fn:
        values, scale = _fp8_over_256(values), 256 * scale
    return values.float().mul_(scale).to(like.dtype)


def _fp8_over_256(values: Tensor) -> Tensor:
    """Return fp8 (e4m3fn) values divided by 256, exact, in float16. torch's own cast takes twenty times as long.

    The exponents of the two formats differ by 8. With a zero between exponent and mantissa the bits are the same.
    Only NaN, which no stored weight is, would become a number.
    """
    bits = values.view(torch.int8).to(torch.int16).bitwise_left_shift_(7)  # copies the sign to bit 14
    return bits.bitwise_and_(~(1 << 14)).view(torch.float16)
