"""The turn between the core's latents [batch, frames, 64] and ComfyUI's LATENT, [batch, 64, frames] in a dict."""

from __future__ import annotations

import torch

from ..acestep_core.config import LATENT_CHANNELS
from ..acestep_core.errors import RequestError


def to_latent(latents: torch.Tensor) -> dict:
    return {"samples": latents.movedim(-1, 1).contiguous(), "type": "audio"}


def from_latent(latent: dict) -> torch.Tensor:
    samples = latent["samples"]
    if samples.ndim != 3 or samples.shape[1] != LATENT_CHANNELS:
        raise RequestError(
            f"this latent is not a song: it has the shape {list(samples.shape)}, a song has [batch, {LATENT_CHANNELS}, "
            "frames]"
        )
    return samples.movedim(1, -1)
