"""Layers that compute in the dtype of their input, whatever dtype their weights are stored in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
