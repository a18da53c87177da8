"""Held-out songs: their loss says when an adapter stops learning what the songs have in common."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from ..errors import RequestError, shown
from ..models.model import AceStepModel
from .features import Features
from .flow_loss import TIME_DEVIATION, TIME_MEAN, draw_training_noise, flow_loss
from .train_settings import TrainSettings

TIMES = 8  # at which the loss of a song is measured


@dataclass(frozen=True)
class BestFactors:
    """The factors with the lowest held-out loss so far, on the CPU, and the step after which they had it."""

    step: int
    loss: float
    factors: Mapping[str, Tensor]


def choose_held_out(names: Sequence[str], settings: TrainSettings) -> list[int]:
    """Return the places of the songs that the settings hold out. names: file names of all songs.

    Raises RequestError if a name is unknown or no song is left to train on.
    """
    held_out = settings.held_out
    if isinstance(held_out, int):
        chosen = random.Random(f"{settings.seed} held out").sample(range(len(names)), min(held_out, len(names)))
    else:
        chosen = [_place(name, names) for name in held_out]
    if chosen and len(set(chosen)) >= len(names):
        raise RequestError(f"held_out must leave a song to train on, got {len(set(chosen))} of {len(names)} songs")
    return sorted(set(chosen))


def _place(name: str, names: Sequence[str]) -> int:
    found = [place for place, each in enumerate(names) if name in (each, each.rpartition(".")[0])]
    if len(found) != 1:
        reason = "no song has" if not found else "several songs have"
        raise RequestError(f"held_out: {reason} the name {shown(name)}; songs are {shown(', '.join(names))}")
    return found[0]


@dataclass(frozen=True)
class HeldOutSongs:
    """Songs that a training does not see, on which its loss is measured.

    Each measurement has the same times, noise and crops, so that only the factors differ. The text is never dropped.
    """

    network: AceStepModel
    features: Sequence[Features]
    settings: TrainSettings
    device: torch.device

    @torch.no_grad()
    def loss(self) -> float:
        """Return the mean loss of the network as it is."""
        times = measured_times(self.settings.turbo_times(self.network.config))
        losses = [
            self._loss_at(song, number, time, len(times))
            for song in range(len(self.features))
            for number, time in enumerate(times)
        ]
        return sum(losses) / len(losses)

    def _loss_at(self, song: int, number: int, time: float, count: int) -> float:
        """Return the loss at one time, of a crop of its own: the crops lie evenly over the song."""
        latents, condition = self.features[song].latents, self.features[song].condition
        frames = min(self.settings.crop_frames or len(latents), len(latents))
        start = round((len(latents) - frames) * number / max(1, count - 1))
        rng = random.Random(f"held out {song} {number}")
        data = latents[None, start : start + frames].float()
        noise = draw_training_noise([rng], frames, data.shape[2])
        rows = condition.to(self.device, self.network.decoder.dtype)
        placed = [each.to(self.device) for each in (data, noise, torch.tensor([time]))]
        return flow_loss(self.network, placed[0], [rows], *placed[1:]).item()


def measured_times(choices: Sequence[float] | None) -> list[float]:
    """Return the times of a measurement: all choices, or quantiles of continuous times."""
    if choices is not None:
        return list(choices)
    logits = NormalDist(TIME_MEAN, TIME_DEVIATION)
    quantiles = torch.tensor([logits.inv_cdf((number + 0.5) / TIMES) for number in range(TIMES)])
    return quantiles.sigmoid().tolist()
