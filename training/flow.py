"""Flow matching batches and losses of the diffusion model."""

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
    """Probabilities of the tasks and of condition dropout. The remaining examples are text2music."""

    cover: float = 0.3  # the source is the song's own audio codes
    repaint: float = 0.15  # the source is the song without one region
    reference: float = 0.3  # the timbre reference is another part of the song
    drop: float = 0.1  # the null condition replaces the condition


@dataclass(frozen=True)
class Batch:
    """A batch without noise and times. `latents` `[B, T, 64]`, `context` `[B, T, 128]`, `timbre` `[B, R, 64]`."""

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
    """Draw a task for each song and build its context. `latents` is `[B, T, 64]`; the model needs a silence latent."""
    frames, reference = latents.shape[1], model.config.timbre_fix_frame
    silence = model.silence(frames).to(latents)
    source, mask = silence.expand_as(latents).clone(), torch.ones_like(latents)
    timbre = model.silence(reference).to(latents).expand(len(songs), -1, -1).clone()
    tasks = []
    for row in range(len(songs)):
        choice = rng.random()
        if choice < mixture.cover:
            tasks.append(COVER)
            hint = model.detokenize(model.tokenize(latents[row : row + 1]))
            source[row] = hint[0, :frames]
        elif choice < mixture.cover + mixture.repaint:
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
    """Draw times `[B]` in 0…1 (1 is noise): the sigmoid of a normal, stratified over the batch."""
    even = (rng.random() + np.arange(batch)) / batch
    normal = torch.special.ndtri(torch.tensor(even, dtype=torch.float64).clamp(1e-4, 1 - 1e-4))
    return torch.sigmoid(mean + spread * normal).float()


def encode(model: AceStepModel, tower: TextTower, batch: Batch, drop: float, rng: np.random.Generator):
    """Return condition rows and mask of the batch. The null condition replaces a share `drop` of the items."""
    rows = conditions(model.encoder, tower, batch.songs, batch.tasks, batch.timbre)
    return with_dropout(rows, model.null_condition_emb, drop, rng)


def flow_loss(
    model: AceStepModel, tower: TextTower, batch: Batch, noise: Tensor, t: Tensor, drop: float, rng: np.random.Generator
) -> Tensor:
    """Return the squared error of the velocity per item `[B]`, mainly over the frames to generate."""
    return flow_error(model, batch, noise, t, *encode(model, tower, batch, drop, rng))


def flow_error(
    model: AceStepModel, batch: Batch, noise: Tensor, t: Tensor, condition: Tensor, mask: Tensor | None
) -> Tensor:
    """Compute `flow_loss` for an encoded condition."""
    noisy = t[:, None, None] * noise + (1 - t[:, None, None]) * batch.latents
    velocity = model.decoder(noisy, t, model.decoder.prepare(batch.context, condition, mask))
    return masked_error(velocity, noise - batch.latents, batch.context)


def masked_error(predicted: Tensor, target: Tensor, context: Tensor) -> Tensor:
    """Return the mean squared error per item `[B]`. Frames outside the mask have a tenth of the weight."""
    weight = 0.1 + 0.9 * context[..., -1]
    error = (predicted - target).square().mean(-1)
    return (error * weight).sum(1) / weight.sum(1)
