"""Count the bytes of tensors that are alive at the same time, on any device.

On the meta device nothing is computed, so that networks of any size can be counted anywhere. The scratch memory of
kernels is not counted. Attention counts as a fused kernel: its inputs and its result.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Meter(TorchDispatchMode):
    """Count the storages that are created inside this context: `now` and `peak` are bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._sizes: dict[int, int] = {}

    def add(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._sizes:
                self._sizes[key] = storage.nbytes()
                weakref.finalize(storage, self._remove, key)
                self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _remove(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


@contextmanager
def metered() -> Iterator[Meter]:
    """Meter a block of code in inference mode, with attention as a fused kernel. The values of attention are unset."""

    def fused(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
        return torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device=query.device)

    with mock.patch.object(F, "scaled_dot_product_attention", fused), torch.inference_mode(), Meter() as meter:
        yield meter
