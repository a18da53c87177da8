"""Pre-train the diffusion model to follow the clock of the requested tempo (`training.dit --rhythm-minutes`).

Without pre-training, a model learns late to combine the tempo in the text with the clocks in the silence latent. Here,
the latents are noise and there are no lyrics. The loss is the error of the position in the beat and in the bar, which
a linear head predicts from the middle layer.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from acestep_core.edit.tasks import TEXT2MUSIC

from .conditioning import piece_of
from .examples import song_of
from .flow import draw_times
from .muon import RATE_FACTOR, Muon
from .score import PHASES, beat_phases

log = logging.getLogger("acestep")
FRAMES = 96  # of a crop, within the first LAST frames
LAST = 750


def rhythm_loss(trainer, rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor]:
    """Return the squared error of the phases where the text has a tempo, and the sum of the metadata errors."""
    model, tower = trainer.networks.model, trainer.networks.tower
    pieces = [piece_of(int(seed)) for seed in rng.integers(0, 6000, batch)]
    songs = [song_of(piece, rng, trainer.recipe.metadata_dropout) for piece in pieces]
    with torch.no_grad():
        timbre = model.encoder.timbre_encoder(model.silence(model.config.timbre_fix_frame))[:, None]
        lyrics = model.encoder.lyric_encoder(tower.lyrics([replace(songs[0], lyrics="[Instrumental]")])[0])
    captions = tower.captions(songs, [TEXT2MUSIC] * batch)
    texts = [model.encoder.text_projector(caption) for caption in captions]
    longest = max(row.shape[1] for row in texts)
    mask = torch.zeros(batch, lyrics.shape[1] + 1 + longest, dtype=torch.bool, device=trainer.device)
    rows = torch.zeros(*mask.shape, lyrics.shape[2], device=trainer.device)
    for index, row in enumerate(texts):
        whole = torch.cat((lyrics, timbre, row), dim=1)
        rows[index, : whole.shape[1]] = whole[0]
        mask[index, : whole.shape[1]] = True
    starts = 2 * rng.integers(0, (LAST - FRAMES) // 2, batch)
    silence = model.silence(LAST)[0]
    source = torch.stack([silence[start : start + FRAMES] for start in starts])
    noise = torch.from_numpy(rng.standard_normal(source.shape, np.float32)).to(source)
    context = torch.cat((source, torch.ones_like(source)), dim=-1)
    model.decoder(noise, draw_times(batch, rng).to(source), model.decoder.prepare(context, rows, mask))
    predicted = trainer.heads["score"].predict(trainer.middle.rows)[..., :PHASES]
    target = torch.from_numpy(
        np.stack([beat_phases(piece, np.arange(at, at + FRAMES)) for piece, at in zip(pieces, starts, strict=True)])
    )
    given = torch.tensor([song.metadata.bpm is not None for song in songs], device=trainer.device).float()
    error = (predicted - target.to(predicted)).square().mean((1, 2))
    metadata = trainer.heads["metadata"](torch.cat([row[:, -1] for row in texts]), pieces, songs)
    return (error * given).sum() / given.sum().clamp_min(1), sum(metadata.values())


def pretrain_rhythm(trainer, minutes: float, batch: int = 32, rate: float = 1e-3) -> float:
    """Train the lower layers and the text encoder for `minutes`. Return the last mean error (0.5 is chance)."""
    start, step, mean = time.monotonic(), 0, 0.5
    while (elapsed := (time.monotonic() - start) / 60) < minutes:
        loss, metadata = rhythm_loss(trainer, np.random.default_rng([23, step]), batch)
        for optimiser in trainer.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                factor = RATE_FACTOR if isinstance(optimiser, Muon) else 1
                group["lr"] = rate * factor * min(1, (step + 1) / 50) * (1 - 0.9 * elapsed / minutes)
        (4 * loss + 0.3 * metadata).backward()
        torch.nn.utils.clip_grad_norm_(trainer.networks.parameters(), 1.0)
        for optimiser in trainer.optimisers:
            optimiser.step()
        mean = 0.95 * mean + 0.05 * float(loss.detach())
        if step % 50 == 0:
            log.info("Rhythm pre-training, step %d: phases %.3f, metadata %.3f", step, mean, float(metadata.detach()))
        step += 1
    return mean
