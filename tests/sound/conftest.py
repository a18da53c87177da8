from __future__ import annotations

import numpy as np
import pytest
import torch

from acestep_core import encode_audio, load_model
from training.composer import compose
from training.piece import Constraints, Piece
from training.pool import HELD_OUT
from training.synth import render

SECONDS = 12


@pytest.fixture(scope="session")
def nano():
    return load_model("nano", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def sources(nano) -> list[tuple[Piece, np.ndarray, torch.Tensor]]:
    """Held-out pieces: the score, the sound `[2, samples]`, and the latents `[1, frames, 64]`."""
    pieces = []
    for seed in range(HELD_OUT + 9000, HELD_OUT + 9100):
        piece = compose(seed, Constraints(seconds=SECONDS))
        if "drums" in piece.instruments and not piece.solo:
            wave = render(piece)
            pieces.append((piece, wave, encode_audio(nano, torch.from_numpy(wave)[None], 48_000)))
        if len(pieces) == 4:
            return pieces
    raise AssertionError("the composer writes too few pieces with drums")
