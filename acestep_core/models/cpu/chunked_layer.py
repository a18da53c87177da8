"""DiT layers that compute in chunks of positions on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dit import DiTLayer
from . import products


class ChunkedDiTLayer(DiTLayer):
    """Computes cross-attention and MLP for a chunk of positions at a time.

    Intermediate results then stay in the cache. They also need no new memory from the system, which costs more than the
    arithmetic.
    """

    def positionwise(self, x: Tensor, *inputs, **options) -> Tensor:
        chunks = -(-x.shape[1] // chunk_rows(x.shape[2]))
        casts = self.mlp.up_proj.weight.dtype != x.dtype  # at each use, so chunks would cast more often
        positionwise = super().positionwise
        if x.device.type != "cpu" or casts or chunks == 1:
            return positionwise(x, *inputs, **options)
        return torch.cat([positionwise(rows, *inputs, **options) for rows in x.chunk(chunks, dim=1)], dim=1)


def chunk_rows(width: int) -> int:
    """Return the number of positions in a chunk.

    Wide matrices need longer chunks, as each chunk reads them again. oneDNN needs long ones in any case.
    """
    return max(512, width // 2) if products.ONEDNN is None else 2048
