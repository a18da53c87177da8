"""Pre-train the text encoder to predict tempo, key, meter, style and instruments from captions.

Text is far cheaper than latents. Without pre-training, the text encoder's output is noise, which the diffusion model
learns to ignore. `training.dit --text-minutes` sets the duration.
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
from torch import Tensor

from acestep_core.edit.tasks import COVER, REPAINT, TEXT2MUSIC
from acestep_core.song.song import Song

from .conditioning import piece_of
from .examples import song_of
from .piece import Piece
from .score import MetadataHead

log = logging.getLogger("acestep")


def metadata_loss(
    networks, head: MetadataHead, captions: list[Tensor], pieces: list[Piece], songs: list[Song]
) -> tuple[Tensor, dict[str, float]]:
    """Return the sum of the errors in the last row of each caption's condition, and each error."""
    last = torch.cat([networks.model.encoder.text_projector(caption[:, -1]) for caption in captions])
    errors = head(last, pieces, songs)
    return sum(errors.values()), {name: float(value.detach()) for name, value in errors.items()}


def pretrain_text_encoder(
    networks,
    head: MetadataHead,
    minutes: float,
    dropout: float,
    batch: int = 48,
    rate: float = 2e-3,
    pieces: int = 6000,
) -> dict[str, float]:
    """Train the text encoder and its projection for `minutes` and return the last mean errors."""
    tower, projector = networks.tower, networks.model.encoder.text_projector
    parameters = [*tower.parameters(), *projector.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    start, step, means = time.monotonic(), 0, {}
    while (elapsed := (time.monotonic() - start) / 60) < minutes:
        rng = np.random.default_rng([17, step])
        chosen = [piece_of(int(seed)) for seed in rng.integers(0, pieces, batch)]
        songs = [song_of(piece, rng, dropout) for piece in chosen]
        tasks = [(TEXT2MUSIC, COVER, REPAINT)[i] for i in rng.choice(3, batch, p=(0.7, 0.1, 0.2))]
        loss, parts = metadata_loss(networks, head, tower.captions(songs, tasks), chosen, songs)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (1 - 0.95 * elapsed / minutes)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        means = {name: 0.98 * means.get(name, value) + 0.02 * value for name, value in parts.items()}
        if step % 100 == 0:
            log.info("Text pre-training, step %d: %s", step, " ".join(f"{k} {v:.3f}" for k, v in means.items()))
        step += 1
    return means
