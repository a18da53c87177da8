"""Noise from seeds: drawn on the CPU in float32, one generator per item, so a seed is the same song on every device.

An item's noise depends on its own seed and on the number of frames, never on its place in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import torch

from ..config import LATENT_CHANNELS
from ..errors import RequestError
from ..song.seeds import SEED_RANGE


def draw_noise(seeds: Sequence[int], frames: int, channels: int = LATENT_CHANNELS) -> torch.Tensor:
    """Standard normal noise [len(seeds), frames, channels], float32 on the CPU.

    Each item is drawn as [1, channels, frames], the order of ComfyUI's own samplers, so that a seed is the same song
    there. (The original draws [1, frames, channels] on its GPU, which no other machine repeats.)
    """
    return torch.cat([_draw(seed, frames, channels) for seed in seeds])


def retake_noise(noise: torch.Tensor, seeds: Sequence[int], variance: float) -> torch.Tensor:
    """Noise [B, T, C] turned towards that of other seeds, one per item; it stays standard normal.

    `variance` goes from 0, the noise as it is, to 1, that of the other seeds alone. A little of it gives another take
    that is near the first one.
    """
    if not isinstance(variance, Real) or not 0 <= variance <= 1:
        raise RequestError(f"the variance of a retake lies from 0 (the same take) to 1 (another one), got {variance!r}")
    if variance == 0:
        return noise
    other = draw_noise(seeds, *noise.shape[1:]).to(noise)
    angle = variance * math.pi / 2
    return other if variance == 1 else math.cos(angle) * noise + math.sin(angle) * other


def draw_step_noise(seeds: Sequence[int], step: int, frames: int, channels: int = LATENT_CHANNELS) -> torch.Tensor:
    """Fresh noise for `step` (0, 1, ...) of a stochastic solver, [len(seeds), frames, channels], float32 on the CPU.

    An item's generator is seeded by the (step + 1)-th output of SplitMix64 started at the item's seed: reproducible in
    any order, and unlike `seed + step` never the noise that a neighbour in the batch (seed + 1) starts from.
    """
    return torch.cat([_draw(_splitmix64(seed, step + 1), frames, channels) for seed in seeds])


def _draw(seed: int, frames: int, channels: int) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(1, channels, frames, generator=generator, dtype=torch.float32).transpose(1, 2)


def _splitmix64(start: int, n: int) -> int:
    """The n-th output (n ≥ 1) of the SplitMix64 generator: a counter and a bit mixer, all modulo 2**64."""
    z = (start + n * 0x9E3779B97F4A7C15) % SEED_RANGE
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % SEED_RANGE
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % SEED_RANGE
    return z ^ (z >> 31)
