"""Nano's heads follow the lyrics, of recordings and of its own songs."""

from __future__ import annotations

import numpy as np
import pytest

from acestep_core.config import FRAME_RATE
from acestep_core.lyrics.capture import lyric_heads
from training.lyric_heads import (
    FIRST_SEED,
    Shares,
    all_heads,
    even_errors,
    found_starts,
    held_out,
    recordings,
    rows_of,
    score_pairs,
    start_errors,
)
from training.wording import FREE_LYRICS

OTHER_WORDS = FREE_LYRICS + 1_000_000


@pytest.fixture(scope="module")
def rows(nano) -> list[int]:
    """The rows of the listed heads in the attention of all heads."""
    return rows_of(lyric_heads(nano.network.config), all_heads(nano))


@pytest.mark.parametrize(
    ("first_seed", "least"), [(FIRST_SEED, 0.7), (OTHER_WORDS, 0.5)], ids=["words of the composer", "other words"]
)
def test_lines_of_recordings_start_when_they_are_sung(nano, rows, first_seed, least):
    """The card of nano has the results of 50 pieces."""
    takes = list(recordings(nano, held_out(10, first_seed)))
    patch_seconds = nano.network.config.patch_size / FRAME_RATE
    found = Shares.of(start_errors(takes, lambda take: found_starts(take, rows, patch_seconds)))
    even = Shares.of(even_errors(takes))
    assert found.near >= least and found.near > even.near + 0.2, (found, even)
    assert found.far > even.far + 0.2, (found, even)


def test_songs_score_higher_by_their_own_lyrics(nano, rows):
    """The card of nano has the result of 30 pairs."""
    own, other = zip(*score_pairs(nano, held_out(8), rows), strict=True)
    assert np.mean(own) > 1.5 * np.mean(other), (own, other)
    assert np.greater(own, other).mean() >= 0.7, (own, other)
