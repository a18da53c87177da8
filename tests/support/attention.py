"""Attention with a known alignment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def constructed(spans: Sequence[tuple[int, int] | None], patches: int, heads: int = 3, noise: float = 0.01) -> Tensor:
    """Return attention [heads, tokens, patches] in which each token is sung from its first to before its last patch.

    A span of None is a token that is not sung.
    """
    attention = noise * torch.rand(heads, len(spans), patches, generator=torch.Generator().manual_seed(0))
    for token, span in enumerate(spans):
        if span is not None:
            attention[:, token, slice(*span)] = 0.9
    return attention
