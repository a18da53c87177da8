"""Score a take by its lyrics, and rank takes by their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .alignment import mean_energy, warping_path

FOUND_ENERGY = 0.1  # energy above which a token is found
CENTROID_ENERGY = 0.01  # energy above which a patch counts for the place of a token
OVERLAP_PATCHES = 9  # a token may lie so many patches before the previous one


@dataclass(frozen=True)
class LyricScore:
    """The score of a take by its lyrics. Each number is from 0 to 1.

    coverage: share of the tokens that are found.
    monotonicity: share of neighbouring tokens in the right order.
    confidence: mean energy of the attention along the alignment.
    """

    coverage: float
    monotonicity: float
    confidence: float

    @property
    def value(self) -> float:
        """The score of the take, coverage² · monotonicity² · confidence."""
        return min(1.0, self.coverage**2 * self.monotonicity**2 * self.confidence)


def score_lyrics(attention: Tensor, sung: NDArray[np.bool_]) -> LyricScore:
    """Return the score of a take from the attention [heads, tokens, patches] of its tokens.

    sung: True for the tokens outside of tags.
    """
    energy = mean_energy(attention)
    path = warping_path(-np.square(energy))
    rows = energy[sung].astype(np.float64)
    return LyricScore(
        coverage=float((rows.max(axis=1) > FOUND_ENERGY).mean()) if len(rows) else 1.0,
        monotonicity=_monotonicity(rows),
        confidence=float(energy[path.tokens, path.patches].mean(dtype=np.float64)),
    )


def _monotonicity(rows: NDArray[np.float64]) -> float:
    weights = np.where(rows > CENTROID_ENERGY, rows, 0)
    totals = weights.sum(axis=1)
    placed = totals > 1e-9
    centroids = weights[placed] @ np.arange(rows.shape[1]) / totals[placed]
    return float((np.diff(centroids) >= -OVERLAP_PATCHES).mean()) if len(centroids) > 1 else 1.0


@dataclass(frozen=True)
class Ranking:
    """The order of takes, the best first.

    order: their indices.
    notes: sentences for the user.
    """

    order: tuple[int, ...]
    notes: tuple[str, ...]


def rank_takes(scores: Sequence[LyricScore | float | None]) -> Ranking:
    """Rank takes by their scores. Ties keep their order. Takes without a score, such as instrumentals, come last."""
    values = [
        -1.0 if score is None else round(score.value if isinstance(score, LyricScore) else score, 4) for score in scores
    ]
    order = sorted(range(len(values)), key=lambda i: -values[i])
    missing = values.count(-1.0)
    notes = []
    if values and missing == len(values):
        notes.append("lyrics: nothing is sung in these takes, so they keep their order")
    elif missing:
        notes.append(f"lyrics: nothing is sung in {missing} of {len(values)} takes, which come last")
    ties = [i for i in order if values[i] >= 0 and values.count(values[i]) > 1]
    if ties:
        listed = ", ".join(str(i + 1) for i in ties)
        notes.append(f"lyrics: takes {listed} share their score with another take, and keep their order")
    return Ranking(tuple(order), tuple(notes))
