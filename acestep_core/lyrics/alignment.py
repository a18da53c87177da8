"""Align tokens with patches of a song from the attention of a few heads.

Axis letters: H heads, N tokens, P patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

SUPPRESSION = 2.0  # times the median, which is subtracted from the attention of a token and of a patch


@dataclass(frozen=True)
class WarpingPath:
    """A path from the first token and patch to the last ones. Each step goes to the next token, patch or both.

    tokens, patches: one entry per step.
    """

    tokens: Ints
    patches: Ints

    def bounds(self) -> tuple[Ints, Ints]:
        """Return the first and the last patch of each token."""
        first = np.searchsorted(self.tokens, np.arange(self.tokens[-1] + 1))
        last = np.append(first[1:], len(self.tokens)) - 1
        return self.patches[first], self.patches[last]


def alignment_energy(attention: Tensor) -> tuple[Floats, Floats]:
    """Return the matrix to align and the energy above the background, both [N, P], float32.

    attention: [H, N, P], float32, on the CPU.

    A pair counts if its attention stands out among the patches of its token and among the tokens of its patch.
    """
    sharpened = torch.stack([torch.from_numpy(_standing_out(head)) for head in attention])
    energy = sharpened.mean(dim=0).numpy()
    deviation, mean = torch.std_mean(sharpened, unbiased=False)
    standardized = sharpened.sub_(mean).div_(deviation + 1e-9)
    return standardized.mean(dim=0).numpy(), energy


def _standing_out(head: Tensor) -> NDArray[np.float32]:
    """Return the squared attention of one head [N, P] above twice the medians of rows and columns."""
    # The softmax of a softmax is the original's.
    pairs = (head.softmax(dim=1) * head.softmax(dim=0)).numpy()
    pairs -= SUPPRESSION * _median(pairs)[:, None]
    np.maximum(pairs, 0, out=pairs)
    # Most columns have zeros for more than half of the tokens, so their median is zero.
    columns = np.flatnonzero((pairs == 0).sum(axis=0) <= len(pairs) // 2)
    if len(columns):
        pairs[:, columns] -= SUPPRESSION * _median(np.ascontiguousarray(pairs[:, columns].T))
        np.maximum(pairs, 0, out=pairs)
    return np.square(pairs, out=pairs)


def _median(rows: Floats) -> Floats:
    """Return the median of each row, rounded as torch.quantile does."""
    middle = rows.shape[1] // 2
    if rows.shape[1] % 2:
        return np.partition(rows, middle, axis=1)[:, middle]
    both = np.partition(rows, (middle - 1, middle), axis=1)
    low, high = both[:, middle - 1], both[:, middle]
    return high - (high - low) * rows.dtype.type(0.5)


def mean_energy(attention: Tensor) -> Floats:
    """Return the mean attention of the heads [N, P], scaled to 0…1, or zeros if it is constant."""
    mean = attention.mean(dim=0).numpy()
    low, high = mean.min(), mean.max()
    return (mean - low) / (high - low) if high - low > 1e-9 else np.zeros_like(mean)


def warping_path(cost: Floats) -> WarpingPath:
    """Return the path of the lowest total cost [N, P] by dynamic time warping.

    Totals are float32. Of equal ones a step to the next patch wins over both others.
    """
    tokens, patches = cost.shape
    # Row d holds the anti-diagonal token + patch = d, whose cells depend on the two rows before alone.
    skewed = np.zeros((tokens + patches - 1, tokens), cost.dtype)
    rows = np.arange(tokens)[:, None]
    skewed[rows + np.arange(patches), rows] = cost
    moves = np.empty(skewed.shape, np.int8)
    # Entry i + 1 is the total at token i.
    before = np.full(tokens + 1, np.inf, np.float32)
    diagonal = before.copy()
    diagonal[0] = 0  # the start, before the first token and patch
    for d in range(tokens + patches - 1):
        first, last = max(0, d - patches + 1), min(tokens, d + 1)
        both, token, patch = diagonal[first:last], before[first:last], before[first + 1 : last + 1]
        is_both = (both < token) & (both < patch)
        is_token = (token < both) & (token < patch)
        moves[d, first:last] = np.where(is_both, 0, np.where(is_token, 1, 2))
        best = np.where(is_both, both, np.where(is_token, token, patch))
        totals = np.full(tokens + 1, np.inf, np.float32)
        totals[first + 1 : last + 1] = skewed[d, first:last] + best
        diagonal, before = before, totals
    return _trace(moves, tokens, patches)


def _trace(moves: NDArray[np.int8], tokens: int, patches: int) -> WarpingPath:
    token, patch = tokens - 1, patches - 1
    steps = []
    while True:
        steps.append((token, patch))
        if token == 0 and patch == 0:
            break
        move = 2 if token == 0 else 1 if patch == 0 else moves[token + patch, token]
        token, patch = token - (move != 2), patch - (move != 1)
    path = np.array(steps[::-1])
    return WarpingPath(path[:, 0], path[:, 1])
