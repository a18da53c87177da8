"""Errors, and how large they may be.

A result is compared by its relative error: the root of the summed squared differences over that of the expected
values. Rounding errors are independent, so those of `roundings` results in sequence grow with its square root. Each is
at most half of `eps`, the distance of two neighbouring numbers near one. A product sums in float32, whose error grows
with the square root of its `terms`. The bound takes the whole `eps`, three to ten times the expected error:

    sqrt(roundings) * (eps(dtype) + eps(float32) * sqrt(terms))

A transformer layer rounds ROUNDINGS times. In float32 a single layer in bfloat16 or TF32 is beyond the bound.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDINGS = 16  # of one transformer layer: two norms, seven products, attention, positions, gates, two sums
TF32_EPS = 2**-10


def rounding_bound(dtype: torch.dtype, roundings: int, terms: int) -> float:
    """Return the largest relative error that rounding explains."""
    return math.sqrt(roundings) * (torch.finfo(dtype).eps + torch.finfo(torch.float32).eps * math.sqrt(terms))


def relative_rms(result: Tensor, expected: Tensor) -> float:
    """Return the relative error. Other shapes and values that are not finite give infinity."""
    if result.shape != expected.shape or not torch.isfinite(result).all():
        return math.inf
    result, expected = result.double().cpu(), expected.double().cpu()
    return float((result - expected).norm() / expected.norm().clamp_min(1e-30))


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
