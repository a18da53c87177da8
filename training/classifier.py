"""Classify style and instruments of a sound. The training data are renders, never a model's output."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .analysis import log_mel
from .composer import compose
from .piece import Constraints, Piece
from .styles import INSTRUMENT_NAMES, STYLES
from .synth import render

STYLE_NAMES = tuple(STYLES)
INSTRUMENTS = tuple(INSTRUMENT_NAMES)
FLOOR = 1.0  # of a mel band: 54 dB below a full-scale sine, which other sounds mask
CLIP = 3.0  # standard deviations to which features are clipped
NOISE = 0.3  # standard deviation of the noise on features in training


def features(wave: np.ndarray) -> Tensor:
    """Return level-independent statistics of the mel bands and of their changes, `[480]`."""
    mel = log_mel(wave / (np.sqrt(np.mean(wave**2)) + 1e-6) * 0.1, floor=FLOOR)
    steps = np.diff(mel, axis=0)
    low, high = np.quantile(mel, (0.1, 0.9), axis=0)
    parts = (mel.mean(0), mel.std(0), low, high, np.abs(steps).mean(0), np.quantile(steps, 0.98, axis=0))
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def labels(piece: Piece) -> tuple[int, Tensor]:
    """Return the style's index and the presence of each instrument."""
    present = set(piece.instruments.values())
    return STYLE_NAMES.index(piece.style), torch.tensor([float(name in present) for name in INSTRUMENTS])


class SoundClassifier(nn.Module):
    """A one-layer perceptron over `features`."""

    def __init__(self):
        super().__init__()
        size = 6 * 80
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.body = nn.Sequential(nn.Dropout(0.3), nn.Linear(size, 128), nn.GELU(), nn.Dropout(0.3))
        self.style = nn.Linear(128, len(STYLE_NAMES))
        self.instruments = nn.Linear(128, len(INSTRUMENTS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the style `[B, styles]` and of each instrument's presence `[B, instruments]`."""
        x = ((x - self.mean) / self.scale).clamp(-CLIP, CLIP)
        hidden = self.body(x + NOISE * torch.randn_like(x) if self.training else x)
        return self.style(hidden), self.instruments(hidden)

    @torch.no_grad()
    def classify(self, wave: np.ndarray) -> tuple[str, set[str]]:
        """Return the style and the instruments of `wave` `[2, samples]`."""
        style, instruments = self(features(wave)[None])
        present = {name for name, logit in zip(INSTRUMENTS, instruments[0].tolist(), strict=True) if logit > 0}
        return STYLE_NAMES[int(style.argmax())], present


def train_classifier(
    pieces: int = 500, seconds: int = 12, first_seed: int = 2_000_000, epochs: int = 250
) -> SoundClassifier:
    """Train a classifier on that many renders."""
    torch.manual_seed(0)
    composed = [compose(first_seed + i, Constraints(seconds=seconds)) for i in range(pieces)]
    x = torch.stack([features(render(piece)) for piece in composed])
    styles, instruments = zip(*(labels(piece) for piece in composed), strict=True)
    style, present = torch.tensor(styles), torch.stack(instruments)
    classifier = SoundClassifier()
    classifier.mean.copy_(x.mean(0))
    classifier.scale.copy_(x.std(0) + 1e-3)
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(epochs):
        for rows in torch.randperm(pieces).split(64):
            a, b = classifier(x[rows])
            loss = F.cross_entropy(a, style[rows]) + 2 * F.binary_cross_entropy_with_logits(b, present[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return classifier.eval()
