"""Noise from seeds, drawn on the CPU in float32 with one generator per item.

A seed is the same song on every device. An item's noise depends on its seed and its frames, not on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..config import LATENT_CHANNELS
from ..song.seeds import SEED_RANGE


def draw_noise(seeds: Sequence[int], frames: int, channels: int = LATENT_CHANNELS) -> torch.Tensor:
    """Draw standard normal noise [len(seeds), frames, channels], float32 on the CPU.

    Items are drawn as [1, channels, frames], as in ComfyUI, where a seed is the same song. (The original draws
    [1, frames, channels] on the GPU, which other machines cannot repeat.)
    """
    return torch.cat([_draw(seed, frames, channels) for seed in seeds])


def retake_noise(noise: torch.Tensor, seeds: Sequence[int], variance: float) -> torch.Tensor:
    """Rotate noise [B, T, C] towards the noise of other seeds, one per item. It stays standard normal.

    variance: from 0 (the given noise) to 1 (the noise of `seeds`). Small values give a similar take.
    """
    if variance == 0:
        return noise
    other = draw_noise(seeds, *noise.shape[1:]).to(noise)
    angle = variance * math.pi / 2
    return other if variance == 1 else math.cos(angle) * noise + math.sin(angle) * other


def draw_step_noise(seeds: Sequence[int], step: int, frames: int, channels: int = LATENT_CHANNELS) -> torch.Tensor:
    """Draw fresh noise for `step` (0, 1, …) of a stochastic solver, [len(seeds), frames, channels], float32 on the CPU.

    An item's generator is seeded with output step + 1 of SplitMix64, which starts at the item's seed. `seed + step`
    would repeat the starting noise of the next item in the batch (seed + 1).
    """
    return torch.cat([_draw(_splitmix64(seed, step + 1), frames, channels) for seed in seeds])


def _draw(seed: int, frames: int, channels: int) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(1, channels, frames, generator=generator, dtype=torch.float32).transpose(1, 2)


def _splitmix64(start: int, n: int) -> int:
    """Return output n (n ≥ 1) of the SplitMix64 generator."""
    z = (start + n * 0x9E3779B97F4A7C15) % SEED_RANGE
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % SEED_RANGE
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % SEED_RANGE
    return z ^ (z >> 31)
