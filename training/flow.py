"""Flow matching: what one training example asks of the diffusion model. Shared by all stages that train it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acestep_core.edit.tasks import COVER, REPAINT, TEXT2MUSIC, Task
from acestep_core.models.model import AceStepModel
from acestep_core.song.song import Song

from .conditioning import TextTower, conditions, with_dropout


@dataclass(frozen=True)
class Mixture:
    """How often which task is trained, and what is left out how often."""

    cover: float = 0.3  # the song's own audio codes as a hint
    repaint: float = 0.15  # part of the song is given, the rest is to be filled in
    reference: float = 0.3  # another part of the same song is the timbre reference
    drop: float = 0.1  # the whole condition is the null condition


@dataclass(frozen=True)
class Batch:
    """Everything but noise and time. `context` `[B, T, 128]`, `timbre` `[B, R, 64]`."""

    seeds: list[int]
    latents: Tensor
    songs: list[Song]
    tasks: list[Task]
    context: Tensor
    timbre: Tensor

    def __len__(self) -> int:
        return len(self.songs)


@torch.no_grad()
def make_batch(
    model: AceStepModel,
    seeds: list[int],
    latents: Tensor,
    songs: list[Song],
    mixture: Mixture,
    rng: np.random.Generator,
) -> Batch:
    """Draws a task for each song `[B, T, 64]` and lays out its context. The model needs its silence latent."""
    frames, reference = latents.shape[1], model.config.timbre_fix_frame
    silence = model.silence(frames).to(latents)
    source, mask = silence.expand_as(latents).clone(), torch.ones_like(latents)
    timbre = model.silence(reference).to(latents).expand(len(songs), -1, -1).clone()
    tasks = []
    for row in range(len(songs)):
        draw = rng.random()
        if draw < mixture.cover:
            tasks.append(COVER)
            hint = model.detokenize(model.tokenize(latents[row : row + 1]))
            source[row] = hint[0, :frames]
        elif draw < mixture.cover + mixture.repaint:
            tasks.append(REPAINT)
            length = int(frames * rng.uniform(0.2, 0.8))
            start = int(rng.integers(0, frames - length + 1)) if rng.random() < 0.7 else frames - length
            source[row] = latents[row]
            source[row, start : start + length] = silence[0, start : start + length]
            mask[row, :start] = 0
            mask[row, start + length :] = 0
        else:
            tasks.append(TEXT2MUSIC)
        if rng.random() < mixture.reference:
            part = latents[row].roll(-int(rng.integers(0, frames)), 0)[:reference]
            timbre[row, : len(part)] = part
    return Batch(seeds, latents, songs, tasks, torch.cat((source, mask), dim=-1), timbre)


def draw_times(batch: int, rng: np.random.Generator, mean: float = 0.8, spread: float = 1.3) -> Tensor:
    """Times in 0..1, 1 = noise, `[B]`: the sigmoid of a normal, spread evenly over the batch."""
    even = (rng.random() + np.arange(batch)) / batch
    normal = torch.special.ndtri(torch.tensor(even, dtype=torch.float64).clamp(1e-4, 1 - 1e-4))
    return torch.sigmoid(mean + spread * normal).float()


def encode(model: AceStepModel, tower: TextTower, batch: Batch, drop: float, rng: np.random.Generator):
    """Condition rows and mask of the batch, some replaced by the null condition."""
    rows = conditions(model.encoder, tower, batch.songs, batch.tasks, batch.timbre)
    return with_dropout(rows, model.null_condition_emb, drop, rng)


def flow_loss(
    model: AceStepModel, tower: TextTower, batch: Batch, noise: Tensor, t: Tensor, drop: float, rng: np.random.Generator
) -> Tensor:
    """Squared error of the predicted velocity, per item `[B]`; counts only frames that are to be generated."""
    return flow_error(model, batch, noise, t, *encode(model, tower, batch, drop, rng))


def flow_error(
    model: AceStepModel, batch: Batch, noise: Tensor, t: Tensor, condition: Tensor, mask: Tensor | None
) -> Tensor:
    """As `flow_loss`, for conditions that are encoded already."""
    noisy = t[:, None, None] * noise + (1 - t[:, None, None]) * batch.latents
    velocity = model.decoder(noisy, t, model.decoder.prepare(batch.context, condition, mask))
    return masked_error(velocity, noise - batch.latents, batch.context)


def masked_error(made: Tensor, wanted: Tensor, context: Tensor) -> Tensor:
    """Mean squared error per item `[B]` where the mask half of the context is 1; a tenth of the weight elsewhere."""
    weight = 0.1 + 0.9 * context[..., -1]
    error = (made - wanted).square().mean(-1)
    return (error * weight).sum(1) / weight.sum(1)
