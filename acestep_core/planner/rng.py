"""Random numbers for sampling tokens: one CPU generator per row, so that a seed gives the same song on every device."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

TOKENS_AHEAD = 16  # tokens that one buffer of numbers serves
BYTES_AHEAD = 2**25  # largest size of a buffer; with many rows it serves fewer tokens


class RowRng:
    """The random numbers of one row. A seed gives the same sequence, however many numbers each call draws."""

    def __init__(self, seed: int):
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def uniform(self, count: int, out: Tensor | None = None) -> Tensor:
        """Return the next `count` uniform numbers from 0 to 1, float32, written to `out` if given."""
        return torch.rand(count, generator=self._generator, dtype=torch.float32, out=out)

    def exponential(self, count: int) -> Tensor:
        """Return the next `count` exponentially distributed numbers, float32."""
        return to_exponential(self.uniform(count))


def to_exponential(uniform: Tensor) -> Tensor:
    """Turn uniform numbers into exponentially distributed ones.

    torch's own exponential numbers differ between machines; its uniform numbers do not.
    """
    return uniform.log().neg_()


def draw_uniform(
    seeds: Sequence[int], count: int, tokens: int, *, ahead: bool = False, pinned: bool = False
) -> Generator[Tensor, None, None]:
    """Yield uniform numbers [rows, count] once for each of `tokens` tokens.

    Drawing 64,000 numbers takes a CPU core 0.25 ms. For eight songs that is longer than a token on a fast GPU.

    ahead: threads draw, all rows in parallel, while the device computes earlier tokens. A yielded tensor stays valid
    until the second next one, because the device may still be copying it. Without `ahead`, a tensor is valid until the
    next one.
    pinned: the buffers are page-locked, so that copying to a GPU does not block the host.
    """
    rngs = [RowRng(seed) for seed in seeds]
    if not (ahead and rngs):
        buffer = torch.empty(1, len(rngs), count)
        for _ in range(tokens):
            _fill(rngs, buffer)
            yield buffer[0]
        return
    size = max(1, min(TOKENS_AHEAD, BYTES_AHEAD // (4 * count * len(rngs))))
    # Threads do not inherit inference mode, and cannot write to a tensor that was created in it.
    with torch.inference_mode(False):
        # The caller reads from one buffer, the threads fill another, the device may still copy from the third.
        buffers = deque([torch.empty(size, len(rngs), count, pin_memory=pinned) for _ in range(3)])
    with ThreadPoolExecutor(min(len(rngs), os.cpu_count() or 1), "acestep-rng") as pool:

        def submit(remaining: int) -> tuple[Tensor, list[Future]]:
            buffers.rotate()
            buffer = buffers[0][:remaining]
            return buffer, [pool.submit(_fill, [rng], buffer[:, row : row + 1]) for row, rng in enumerate(rngs)]

        pending = submit(tokens)
        while tokens:
            buffer, futures = pending
            for future in futures:
                future.result()
            tokens -= len(buffer)
            pending = submit(tokens)
            yield from buffer


def _fill(rngs: Sequence[RowRng], buffer: Tensor) -> None:
    """Write the next numbers of some rows to `buffer` [tokens, rows, count]."""
    for token in buffer:
        for rng, out in zip(rngs, token, strict=True):
            rng.uniform(len(out), out)
