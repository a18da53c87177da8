"""The random numbers of rows: from one generator each, on the CPU, so that a seed is the same song on every device."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

AHEAD_TOKENS, AHEAD_BYTES = 16, 2**25  # what is drawn at a time, ahead: so many tokens, or fewer of many rows


class Dice:
    """The random numbers of one row. A seed gives the same ones in whatever portions they are asked for."""

    def __init__(self, seed: int):
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def uniform(self, count: int, out: Tensor | None = None) -> Tensor:
        """The next `count` numbers from 0 to 1, float32, into `out` if given."""
        return torch.rand(count, generator=self._generator, dtype=torch.float32, out=out)

    def roll(self, count: int) -> Tensor:
        """The next `count`, exponentially distributed."""
        return exponential(self.uniform(count))


def exponential(uniform: Tensor) -> Tensor:
    """Made from uniform numbers, which are the same on every machine; torch's own exponential ones are not."""
    return uniform.log().neg_()


def rolls(
    seeds: Sequence[int], count: int, tokens: int, *, ahead: bool = False, pinned: bool = False
) -> Generator[Tensor, None, None]:
    """The uniform numbers [rows, count] for each of so many tokens, one after the other.

    64 000 numbers take a core a quarter of a millisecond: for eight songs that is more than a fast GPU needs for the
    whole token. `ahead`: threads draw them, all rows at once, while the device is at earlier tokens. A token's numbers
    are then left alone until the next but one is asked for, as the device may still be copying them while it is at the
    next; otherwise only until the next. `pinned`: they lie in page-locked memory, whose copying holds nobody up.
    """
    dice = [Dice(seed) for seed in seeds]
    if not (ahead and dice):
        alone = torch.empty(1, len(dice), count)
        for _ in range(tokens):
            _draw(dice, alone)
            yield alone[0]
        return
    size = max(1, min(AHEAD_TOKENS, AHEAD_BYTES // (4 * count * len(dice))))
    # One to read from, one to draw, and one that the device may still be copying from. A host may be in inference mode,
    # which the threads do not inherit: without it they could not write into what was made in it.
    with torch.inference_mode(False):
        rooms = deque([torch.empty(size, len(dice), count, pin_memory=pinned) for _ in range(3)])
    with ThreadPoolExecutor(min(len(dice), os.cpu_count() or 1), "acestep-dice") as pool:

        def order(left: int) -> tuple[Tensor, list[Future]]:
            rooms.rotate()
            room = rooms[0][:left]
            return room, [pool.submit(_draw, [each], room[:, row : row + 1]) for row, each in enumerate(dice)]

        coming = order(tokens)
        while tokens:
            room, drawn = coming
            for each in drawn:
                each.result()
            tokens -= len(room)
            coming = order(tokens)
            yield from room


def _draw(dice: Sequence[Dice], room: Tensor) -> None:
    """The next numbers of some rows, [tokens, rows, count]."""
    for token in room:
        for each, out in zip(dice, token, strict=True):
            each.uniform(len(out), out)
