"""Keeping what is outside of the regions: on the way, and at the end. Pure functions over latents [B, T, 64]."""

from __future__ import annotations

import torch

from ..audio.splice import soft_mask
from ..edit.edit import Edit
from ..edit.source import spans
from .loop import AfterStep


def injection(noise: torch.Tensor, source: torch.Tensor, made: torch.Tensor, steps: int) -> AfterStep:
    """An `after_step` that puts the source back, noised to the time reached, where `made` [B, T] is False.

    It does so after the first `steps` steps, with the noise that sampling began with. At time 0 it leaves the latents
    alone, as the original does on turbo models: `blend` is what joins the two parts.
    """
    made = made[..., None]

    def inject(index: int, t: float, x: torch.Tensor) -> torch.Tensor:
        if index >= steps or t == 0:
            return x
        return torch.where(made, x, t * noise + (1 - t) * source)

    return inject


def blend(latents: torch.Tensor, source: torch.Tensor, made: torch.Tensor, ramp: int) -> torch.Tensor:
    """`latents` where `made` [B, T] is True, the source itself elsewhere, and `ramp` frames of both in between.

    The ramps lie outside of what was made.
    """
    weight = torch.stack([soft_mask(len(row), spans(row), ramp) for row in made.cpu()])[..., None].to(latents)
    mixed = weight * latents + (1 - weight) * source
    return torch.where(weight == 0, source, torch.where(weight == 1, latents, mixed))


def keeping(edit: Edit, noise: torch.Tensor, source: torch.Tensor, steps: int) -> AfterStep | None:
    """The injection that an edit asks for in a sampling of so many steps; None where it has nothing to keep."""
    ratio = 1 - edit.freedom
    if not edit.is_partial or round(ratio * steps) == 0:
        return None
    made = torch.nn.functional.pad(edit.generated(), (0, noise.shape[1] - edit.frames))
    return injection(noise, source, made.to(noise.device), round(ratio * steps))


def kept(edit: Edit, latents: torch.Tensor) -> torch.Tensor:
    """The latents [B, T, 64] of an edit, T its own length, with the source put back where it is to be kept."""
    if not edit.keeps_source:
        return latents
    made = edit.generated().expand(len(latents), -1)
    return blend(latents, edit.source.to(latents).expand_as(latents), made, edit.crossfade_frames)
