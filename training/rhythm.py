"""Teaches the diffusion model to keep time: which of the clocks in silence the words ask for (`--rhythm-minutes`).

That is a product of what the words say and what the clocks show, which a model finds late by itself, in the noise of
all the rest. Here is nothing else: noise for the latents, no lyrics, no voice, and the loss is the place in the beat
and in the bar as the middle layer tells it.
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
from .muon import FASTER, Muon
from .score import PHASES, phases_of

log = logging.getLogger("acestep")
FRAMES = 96  # of a lesson, somewhere in the first LAST
LAST = 750


def rhythm_loss(trainer, rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor]:
    """Squared error of the phases where the words tell a tempo, and what is misread of the words."""
    model, tower = trainer.networks.model, trainer.networks.tower
    pieces = [piece_of(int(seed)) for seed in rng.integers(0, 6000, batch)]
    told = [song_of(piece, rng, trainer.recipe.forget) for piece in pieces]
    with torch.no_grad():
        voice = model.encoder.timbre_encoder(model.silence(model.config.timbre_fix_frame))[:, None]
        lyrics = model.encoder.lyric_encoder(tower.lyrics([replace(told[0], lyrics="[Instrumental]")])[0])
    captions = tower.captions(told, [TEXT2MUSIC] * batch)
    words = [model.encoder.text_projector(caption) for caption in captions]
    longest = max(row.shape[1] for row in words)
    mask = torch.zeros(batch, lyrics.shape[1] + 1 + longest, dtype=torch.bool, device=trainer.device)
    rows = torch.zeros(*mask.shape, lyrics.shape[2], device=trainer.device)
    for index, row in enumerate(words):
        whole = torch.cat((lyrics, voice, row), dim=1)
        rows[index, : whole.shape[1]] = whole[0]
        mask[index, : whole.shape[1]] = True
    starts = 2 * rng.integers(0, (LAST - FRAMES) // 2, batch)
    silence = model.silence(LAST)[0]
    source = torch.stack([silence[start : start + FRAMES] for start in starts])
    noise = torch.from_numpy(rng.standard_normal(source.shape, np.float32)).to(source)
    context = torch.cat((source, torch.ones_like(source)), dim=-1)
    model.decoder(noise, draw_times(batch, rng).to(source), model.decoder.prepare(context, rows, mask))
    read = trainer.readers["score"].read(trainer.middle.rows)[..., :PHASES]
    wanted = torch.from_numpy(
        np.stack([phases_of(piece, np.arange(at, at + FRAMES)) for piece, at in zip(pieces, starts, strict=True)])
    )
    asked = torch.tensor([song.metadata.bpm is not None for song in told], device=trainer.device).float()
    error = (read - wanted.to(read)).square().mean((1, 2))
    facts = trainer.readers["facts"](torch.cat([row[:, -1] for row in words]), pieces, told)
    return (error * asked).sum() / asked.sum().clamp_min(1), sum(facts.values())


def learn_to_keep_time(trainer, minutes: float, batch: int = 32, rate: float = 1e-3) -> float:
    """Trains the lower layers and the text encoder for so many minutes; returns the last error, 0.5 for no idea."""
    start, step, mean = time.monotonic(), 0, 0.5
    while (passed := (time.monotonic() - start) / 60) < minutes:
        loss, facts = rhythm_loss(trainer, np.random.default_rng([23, step]), batch)
        for optimiser in trainer.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                fast = FASTER if isinstance(optimiser, Muon) else 1
                group["lr"] = rate * fast * min(1, (step + 1) / 50) * (1 - 0.9 * passed / minutes)
        (4 * loss + 0.3 * facts).backward()
        torch.nn.utils.clip_grad_norm_(trainer.networks.parameters(), 1.0)
        for optimiser in trainer.optimisers:
            optimiser.step()
        mean = 0.95 * mean + 0.05 * float(loss.detach())
        if step % 50 == 0:
            log.info("rhythm, step %d: %.3f, words %.3f", step, mean, float(facts.detach()))
        step += 1
    return mean
