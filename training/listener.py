"""Recognises style and instruments in a sound: a small classifier taught by renders, never by a model's output."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .composer import Piece, Wish, compose
from .listen import log_mel
from .styles import INSTRUMENT_NAMES, STYLES
from .synth import render

STYLE_NAMES = tuple(STYLES)
INSTRUMENTS = tuple(INSTRUMENT_NAMES)
FLOOR = 1.0  # of a band, 54 dB below a full-scale sine: what is fainter, nobody hears beside the rest of the music
FAR = 3.0  # deviations that no feature is taken to lie further away than
NOISE = 0.3  # deviations by which features are blurred in training


def features(wave: np.ndarray) -> Tensor:
    """How the mel bands are filled and how they move, `[480]`, the level taken out."""
    mel = log_mel(wave / (np.sqrt(np.mean(wave**2)) + 1e-6) * 0.1, floor=FLOOR)
    steps = np.diff(mel, axis=0)
    low, high = np.quantile(mel, (0.1, 0.9), axis=0)
    parts = (mel.mean(0), mel.std(0), low, high, np.abs(steps).mean(0), np.quantile(steps, 0.98, axis=0))
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def labels(piece: Piece) -> tuple[int, Tensor]:
    """Style and the instruments that sound."""
    present = set(piece.instruments.values())
    return STYLE_NAMES.index(piece.style), torch.tensor([float(name in present) for name in INSTRUMENTS])


class Listener(nn.Module):
    def __init__(self):
        super().__init__()
        size = 6 * 80
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.body = nn.Sequential(nn.Dropout(0.3), nn.Linear(size, 128), nn.GELU(), nn.Dropout(0.3))
        self.style = nn.Linear(128, len(STYLE_NAMES))
        self.instruments = nn.Linear(128, len(INSTRUMENTS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of style `[B, styles]` and of each instrument's presence `[B, instruments]`."""
        x = ((x - self.mean) / self.scale).clamp(-FAR, FAR)
        hidden = self.body(x + NOISE * torch.randn_like(x) if self.training else x)
        return self.style(hidden), self.instruments(hidden)

    @torch.no_grad()
    def hear(self, wave: np.ndarray) -> tuple[str, set[str]]:
        style, instruments = self(features(wave)[None])
        present = {name for name, logit in zip(INSTRUMENTS, instruments[0].tolist(), strict=True) if logit > 0}
        return STYLE_NAMES[int(style.argmax())], present


def train_listener(pieces: int = 500, seconds: int = 12, first_seed: int = 2_000_000, epochs: int = 250) -> Listener:
    """A listener taught by that many renders."""
    torch.manual_seed(0)
    scores = [compose(first_seed + i, Wish(seconds=seconds)) for i in range(pieces)]
    x = torch.stack([features(render(piece)) for piece in scores])
    styles, instruments = zip(*(labels(piece) for piece in scores), strict=True)
    style, present = torch.tensor(styles), torch.stack(instruments)
    listener = Listener()
    listener.mean.copy_(x.mean(0))
    listener.scale.copy_(x.std(0) + 1e-3)
    optimiser = torch.optim.AdamW(listener.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(epochs):
        for rows in torch.randperm(pieces).split(64):
            a, b = listener(x[rows])
            loss = F.cross_entropy(a, style[rows]) + 2 * F.binary_cross_entropy_with_logits(b, present[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return listener.eval()
