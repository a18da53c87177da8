"""Teaches the text encoder to read: tempo, key, meter, style and instruments out of the words, before any sound.

Text is far cheaper than latents, and a diffusion model that is told nothing learns to ignore what it is told.
`training.dit --reading-minutes`.
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
from torch import Tensor

from acestep_core.edit.tasks import COVER, REPAINT, TEXT2MUSIC
from acestep_core.song.song import Song

from .composer import Piece
from .conditioning import piece_of
from .examples import song_of
from .score import FactReader

log = logging.getLogger("acestep")


def facts_loss(
    networks, reader: FactReader, captions: list[Tensor], pieces: list[Piece], songs: list[Song]
) -> tuple[Tensor, dict[str, float]]:
    """What is misread in the last row of each caption's condition: their sum, and each fact's part."""
    last = torch.cat([networks.model.encoder.text_projector(caption[:, -1]) for caption in captions])
    errors = reader(last, pieces, songs)
    return sum(errors.values()), {name: float(value.detach()) for name, value in errors.items()}


def learn_to_read(
    networks, reader: FactReader, minutes: float, forget: float, batch: int = 48, rate: float = 2e-3, pieces: int = 6000
) -> dict[str, float]:
    """Trains the text encoder and its projection for so many minutes; returns the last errors by fact."""
    tower, projector = networks.tower, networks.model.encoder.text_projector
    parameters = [*tower.parameters(), *projector.parameters(), *reader.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    start, step, means = time.monotonic(), 0, {}
    while (passed := (time.monotonic() - start) / 60) < minutes:
        rng = np.random.default_rng([17, step])
        chosen = [piece_of(int(seed)) for seed in rng.integers(0, pieces, batch)]
        songs = [song_of(piece, rng, forget) for piece in chosen]
        tasks = [(TEXT2MUSIC, COVER, REPAINT)[i] for i in rng.choice(3, batch, p=(0.7, 0.1, 0.2))]
        loss, parts = facts_loss(networks, reader, tower.captions(songs, tasks), chosen, songs)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (1 - 0.95 * passed / minutes)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        means = {name: 0.98 * means.get(name, value) + 0.02 * value for name, value in parts.items()}
        if step % 100 == 0:
            log.info("reading, step %d: %s", step, " ".join(f"{k} {v:.3f}" for k, v in means.items()))
        step += 1
    return means
