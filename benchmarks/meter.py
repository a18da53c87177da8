"""Bytes that a piece of work allocates, counted tensor by tensor instead of asked of a device.

On the meta device nothing is computed, so a network of any size can be metered anywhere. What is counted: every tensor
that lives at the same time, the results inside of composed operations too. What is not: the scratch memory inside of
one kernel. Attention counts as a device runs it, fused: its inputs and its result, never all pairs.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Meter(TorchDispatchMode):
    """Inside: `now` and `peak` are the bytes of all storages made since it was entered, or `add`ed."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self._known = 0, 0, {}

    def add(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._known:
                size = self._known[key] = storage.nbytes()
                weakref.finalize(storage, self._leave, key, size)
                self.now += size
        self.peak = max(self.peak, self.now)

    def _leave(self, key: int, size: int) -> None:
        del self._known[key]
        self.now -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


@contextmanager
def metered():
    """A Meter at work, where nothing is computed."""
    attention = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
        return torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device=query.device)

    F.scaled_dot_product_attention = fused
    try:
        with torch.inference_mode(), Meter() as meter:
            yield meter
    finally:
        F.scaled_dot_product_attention = attention
