"""Nano's own adapters move any song towards the sound that they were trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acestep_core import generate, load_model
from training import analysis
from training.adapter import FIRST_SEED, OTHER_SEED, TRAITS
from training.composer import compose
from training.examples import song_of
from training.piece import Constraints
from training.synth import render

SECONDS = 8
UNSEEN = 500_000  # added to the seeds of the training


def profile(wave: np.ndarray) -> np.ndarray:
    """Return the mean level of each mel band at one loudness."""
    return analysis.log_mel(wave / (np.sqrt(np.mean(wave**2)) + 1e-6) * 0.1, floor=1.0).mean(0)


def mean_profile(first_seed: int, **constraints: str) -> np.ndarray:
    pieces = (compose(first_seed + UNSEEN + i, Constraints(seconds=SECONDS, **constraints)) for i in range(5))
    return np.mean([profile(render(piece)) for piece in pieces], axis=0)


@pytest.mark.parametrize("trait, name", [("bells", "nano-bells"), ("house", "nano-house")])
def test_an_adapter_moves_songs_towards_its_trait(trait, name):
    usual, trained = mean_profile(OTHER_SEED), mean_profile(FIRST_SEED, **TRAITS[trait])
    direction = (trained - usual) / np.sum((trained - usual) ** 2)  # 0: usual pieces, 1: pieces with the trait
    songs = [song_of(compose(6_000_000 + i, Constraints(seconds=SECONDS))) for i in range(2)]

    def share(strength: float) -> tuple[float, torch.Tensor]:
        model = load_model("nano", device="cpu", dtype="float32", adapters=[(name, strength)] if strength else [])
        waves = [generate(model, song, seed=i).waveform[0] for i, song in enumerate(songs)]
        return float(np.mean([(profile(wave.numpy()) - usual) @ direction for wave in waves])), torch.stack(waves)

    plain, _ = share(0.0)
    adapted, _ = share(1.0)
    assert adapted > plain + 0.25, (plain, adapted)
    for strength in (2.0, -1.0):
        _, waves = share(strength)
        assert waves.isfinite().all() and 0.01 < waves.square().mean().sqrt() < 0.5
