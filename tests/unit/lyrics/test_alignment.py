"""The alignment and the score against plain loops over the formulas, and on attention with a known alignment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acestep_core.lyrics.alignment import alignment_energy, warping_path
from acestep_core.lyrics.scores import LyricScore, rank_takes, score_lyrics
from tests.support.attention import constructed


def plain_path(cost):
    """Return the path by the textbook recurrence, cell by cell, with totals in float32."""
    tokens, patches = cost.shape
    total = np.full((tokens + 1, patches + 1), np.inf, np.float32)
    total[0, 0] = 0
    move = np.zeros((tokens, patches), int)
    for i in range(tokens):
        for j in range(patches):
            both, token, patch = total[i, j], total[i, j + 1], total[i + 1, j]
            move[i, j] = 0 if both < min(token, patch) else 1 if token < min(both, patch) else 2
            total[i + 1, j + 1] = cost[i, j] + (both, token, patch)[move[i, j]]
    i, j, path = tokens - 1, patches - 1, []
    while i >= 0 and j >= 0:
        path.append((i, j))
        step = 2 if i == 0 else 1 if j == 0 else move[i, j]
        i, j = i - (step != 2), j - (step != 1)
    return path[::-1]


def plain_energy(attention):
    """Return the matrix to align, with torch's own median."""
    pairs = attention.softmax(2) * attention.softmax(1)
    for axis in (2, 1):
        pairs = (pairs - 2 * pairs.quantile(0.5, axis, keepdim=True)).relu()
    pairs = pairs**2
    return ((pairs - pairs.mean()) / (pairs.std(unbiased=False) + 1e-9)).mean(0).numpy()


def plain_score(attention, sung):
    energy = attention.mean(0).double().numpy()
    low, high = energy.min(), energy.max()
    energy = (energy - low) / (high - low) if high - low > 1e-9 else np.zeros_like(energy)
    path = plain_path(-(energy.astype(np.float32) ** 2))
    rows = [energy[i] for i in range(len(energy)) if sung[i]]
    coverage = sum(row.max() > 0.1 for row in rows) / len(rows) if rows else 1
    loud = [np.where(row > 0.01, row, 0) for row in rows]
    centroids = [sum(j * value for j, value in enumerate(row)) / row.sum() for row in loud if row.sum() > 1e-9]
    ordered = [after >= before - 9 for before, after in zip(centroids, centroids[1:], strict=False)]
    monotonicity = sum(ordered) / len(ordered) if ordered else 1
    confidence = sum(energy[cell] for cell in path) / len(path)
    return coverage**2 * monotonicity**2 * confidence


def random_attention(generator, case):
    heads, tokens, patches = (int(torch.randint(1, top, (), generator=generator)) for top in (5, 14, 40))
    noise = torch.randn(heads, tokens, patches, generator=generator) * (0.3, 1, 3, 10)[case % 4]
    return noise.softmax(1) if case % 3 else noise.abs()


def test_random_attention_is_aligned_and_scored_as_by_plain_loops():
    generator = torch.Generator().manual_seed(0)
    for case in range(200):
        attention = random_attention(generator, case)
        matrix, _ = alignment_energy(attention)
        assert np.allclose(matrix, plain_energy(attention), atol=1e-5), case
        path = warping_path(-matrix.astype(np.float64))
        expected = plain_path(-plain_energy(attention).astype(np.float64))
        assert list(zip(path.tokens, path.patches, strict=True)) == expected, case
        sung = (torch.rand(attention.shape[1], generator=generator) < 0.8).numpy()
        score = score_lyrics(attention, sung).value
        assert abs(score - min(1, plain_score(attention, sung))) < 1e-5, case


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 5)])
def test_equal_costs_prefer_the_next_patch(shape):
    path = warping_path(np.ones(shape))
    assert list(zip(path.tokens, path.patches, strict=True)) == plain_path(np.ones(shape))
    first, last = path.bounds()
    assert len(first) == shape[0] and last[-1] == shape[1] - 1


def test_constant_attention_scores_zero():
    score = score_lyrics(torch.full((2, 3, 4), 0.5), np.ones(3, bool))
    assert score.confidence == 0 and score.value == 0


def test_a_take_that_misses_tokens_scores_lower():
    whole = [(0, 5), (5, 9), (9, 14), (14, 20)]
    sung = np.ones(4, bool)
    full = score_lyrics(constructed(whole, 24), sung)
    part = score_lyrics(constructed([*whole[:2], None, whole[3]], 24), sung)
    swapped = score_lyrics(constructed([whole[2], whole[0], whole[3], whole[1]], 24), sung)
    assert full.coverage == full.monotonicity == 1
    assert part.coverage == 0.75 and part.value < full.value
    assert swapped.monotonicity < 1 and swapped.value < full.value


def test_takes_are_ranked_by_their_scores():
    best, good, poor = LyricScore(1, 1, 0.9), LyricScore(1, 1, 0.5), LyricScore(0.5, 1, 0.5)
    ranking = rank_takes([poor, best, None, good])
    assert ranking.order == (1, 3, 0, 2) and "1 of 4" in ranking.notes[0]
    ties = rank_takes([good, best, good])
    assert ties.order == (1, 0, 2) and "takes 1, 3" in ties.notes[0]
    nothing = rank_takes([None, None])
    assert nothing.order == (0, 1) and len(nothing.notes) == 1
    assert rank_takes([best, poor]).notes == () and rank_takes([]).order == ()
