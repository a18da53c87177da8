"""Multi-scale STFT discriminators that sharpen the autoencoder's sound, as in EnCodec (arXiv 2210.13438).

The losses are the hinge loss and the distance of the discriminators' features. `training.vae --adversarial` uses them.
They are too slow for a CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

SIZES = (512, 1024, 2048)


class Discriminator(nn.Module):
    """A convolutional network over the complex spectrogram of both channels, with one logit for each patch."""

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
        self.logits = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, wave: Tensor) -> list[Tensor]:
        """Return the features of waveforms `[B, 2, N]` and, as the last item, the logits."""
        window = torch.hann_window(self.size, device=wave.device)
        spectrum = torch.stft(
            wave.flatten(0, 1), self.size, self.size // 4, window=window, return_complex=True, normalized=True
        )
        x = torch.view_as_real(spectrum).unflatten(0, wave.shape[:2]).permute(0, 1, 4, 2, 3).flatten(1, 2)
        x = x * (x.abs() + 1e-4).rsqrt()  # like a square root, so that quiet detail counts
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return [*features, self.logits(x)]


class Adversary(nn.Module):
    """The discriminators and their optimiser."""

    def __init__(self, rate: float = 3e-4, sizes: tuple[int, ...] = SIZES, width: int = 32):
        super().__init__()
        self.discriminators = nn.ModuleList(Discriminator(size, width) for size in sizes)
        self.optimiser = torch.optim.AdamW(self.discriminators.parameters(), lr=rate, betas=(0.8, 0.99))

    def train_step(self, decoded: Tensor, real: Tensor) -> float:
        """Train the discriminators for one step and return their hinge loss (2 is chance)."""
        decoded = decoded.detach()
        losses = [F.relu(1 - d(real)[-1]).mean() + F.relu(1 + d(decoded)[-1]).mean() for d in self.discriminators]
        loss = sum(losses) / len(losses)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def losses(self, decoded: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the autoencoder's adversarial loss and feature distance."""
        adversarial, distance = decoded.new_zeros(()), decoded.new_zeros(())
        for discriminator in self.discriminators:
            with torch.no_grad():
                target = discriminator(real)[:-1]
            *features, logits = discriminator(decoded)
            adversarial = adversarial - logits.mean()
            for a, b in zip(features, target, strict=True):
                distance = distance + (a - b).abs().mean() / (b.abs().mean() + 1e-4) / len(features)
        return adversarial / len(self.discriminators), distance / len(self.discriminators)
