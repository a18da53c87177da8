"""Attention of one query per row over a long KV cache, split over the keys ("flash-decoding").

torch's kernel for masked attention has one block of threads per key head and row, which reads the whole cache. For few
rows most of a GPU then waits. Here each chunk of keys has a block. The kernel also returns the logarithm of the sum of
a chunk's exponentials, and the chunks are averaged by it.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 256  # keys
LONG = 1024  # keys from which on splitting gains more than its four additional kernels per layer cost
ENOUGH_BLOCKS = 64  # about half of the multiprocessors of a large GPU
HIDDEN = -30000.0  # additive mask: its exponential is 0 even in float32, and a chunk of hidden keys has no NaN


def key_chunks(device: torch.device, blocks: int, extent: int) -> int:
    """Return the number of chunks for `extent` keys, 1 if splitting does not pay.

    blocks: key heads of all rows.
    """
    splits = device.type == "cuda" and not torch.version.hip
    if not splits or blocks >= ENOUGH_BLOCKS or extent < LONG or extent % CHUNK:
        return 1
    return extent // CHUNK


def split_bias(future: Tensor, heads: int, groups: int, chunks: int, dtype: torch.dtype) -> Tensor:
    """Return the additive mask of `attend_split`, [B * heads, chunks, groups, keys of a chunk].

    future: True for the keys that a row must not see, [B, keys].
    """
    bias = torch.zeros(future.shape, device=future.device, dtype=dtype).masked_fill_(future, HIDDEN)
    bias = bias.unflatten(1, (chunks, -1))[:, None, :, None]
    return bias.expand(-1, heads, -1, groups, -1).flatten(0, 1)


def attend_split(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Return the attention of q [B, K, G, 1, D] to k, v [B, K, S, D], in q's shape. `bias` is from `split_bias`."""
    chunks = bias.shape[1]
    queries = q.flatten(0, 1).transpose(1, 2).expand(-1, chunks, -1, -1)
    keys, values = (x.flatten(0, 1).unflatten(1, (chunks, -1)) for x in (k, v))
    outputs, logarithms = attend_chunks(queries, keys, values, bias)
    shares = logarithms.softmax(1)[..., None]
    return (outputs * shares).sum(1).to(q.dtype).view(q.shape)


def attend_chunks(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the attention [N, chunks, G, D] to each chunk and the logarithms [N, chunks, G] of its sums, float32.

    q: [N, chunks, G, D]. k, v: [N, chunks, keys, D]. bias: [N, chunks, G, keys].
    """
    # The public function hides the logarithms, which its kernel computes for training.
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    outputs, logarithms, *_ = kernel(q, k, v, bias, True)
    return outputs, logarithms[..., : q.shape[2]]  # the kernel pads them
