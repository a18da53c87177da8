"""Listeners that learn to tell the autoencoder's sound from the music itself, so that it stops sounding blurred.

Each looks at the complex spectrogram of one window size. Hinge losses, and the distance of their inner features
(as in EnCodec, arXiv 2210.13438). Worth its time on a GPU only: `training.vae --adversarial`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

SIZES = (512, 1024, 2048)


class Discriminator(nn.Module):
    """Real and imaginary parts of both channels as an image; a verdict for every patch of it."""

    def __init__(self, size: int, width: int = 32):
        super().__init__()
        self.size = size
        kernel, padding = (9, 3), (4, 1)
        self.layers = nn.ModuleList(
            [
                weight_norm(nn.Conv2d(4, width, kernel, padding=padding)),
                *(weight_norm(nn.Conv2d(width, width, kernel, (2, 1), padding)) for _ in range(3)),
                weight_norm(nn.Conv2d(width, width, 3, padding=1)),
            ]
        )
        self.verdict = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, wave: Tensor) -> list[Tensor]:
        """Inner features of waveforms `[B, 2, N]`, and as the last of them the verdicts."""
        window = torch.hann_window(self.size, device=wave.device)
        spectrum = torch.stft(
            wave.flatten(0, 1), self.size, self.size // 4, window=window, return_complex=True, normalized=True
        )
        x = torch.view_as_real(spectrum).unflatten(0, wave.shape[:2]).permute(0, 1, 4, 2, 3).flatten(1, 2)
        x = x * (x.abs() + 1e-4).rsqrt()  # about a square root: quiet detail counts too
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return [*features, self.verdict(x)]


class Adversary(nn.Module):
    """All discriminators and their optimiser."""

    def __init__(self, rate: float = 3e-4, sizes: tuple[int, ...] = SIZES, width: int = 32):
        super().__init__()
        self.discriminators = nn.ModuleList(Discriminator(size, width) for size in sizes)
        self.optimiser = torch.optim.AdamW(self.discriminators.parameters(), lr=rate, betas=(0.8, 0.99))

    def learn(self, made: Tensor, real: Tensor) -> float:
        """One step towards telling them apart; returns the hinge loss (2 is not telling at all)."""
        made = made.detach()
        loss = sum(F.relu(1 - d(real)[-1]).mean() + F.relu(1 + d(made)[-1]).mean() for d in self.discriminators) / len(
            self.discriminators
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def losses(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """What the autoencoder shall make small: how much it is found out, and the distance of inner features."""
        found, distance = made.new_zeros(()), made.new_zeros(())
        for discriminator in self.discriminators:
            with torch.no_grad():
                wanted = discriminator(real)[:-1]
            *features, verdict = discriminator(made)
            found = found - verdict.mean()
            for a, b in zip(features, wanted, strict=True):
                distance = distance + (a - b).abs().mean() / (b.abs().mean() + 1e-4) / len(features)
        return found / len(self.discriminators), distance / len(self.discriminators)
