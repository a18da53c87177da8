"""Keep the source outside of the regions of an edit, during sampling and after it. All latents are [B, T, 64]."""

from __future__ import annotations

import torch
from torch import Tensor

from ..audio.splice import soft_mask
from ..edit.edit import Edit
from ..edit.masks import mask_spans
from .loop import AfterStep


def inject_source(edit: Edit, noise: Tensor, source: Tensor, steps: int) -> AfterStep | None:
    """Return an `after_step` that replaces the kept parts by the noised source, or None if the edit needs none.

    The first steps inject, more of them with less freedom. `noise` is the starting noise. At time 0 the latents stay
    as they are, as in the original on turbo models: `restore_latents` joins both parts.
    """
    injected = round((1 - edit.freedom) * steps)
    if not edit.is_partial or injected == 0:
        return None
    mask = torch.nn.functional.pad(edit.generated_mask(), (0, noise.shape[1] - edit.frames))
    generated = mask.to(noise.device)[..., None]

    def inject(index: int, t: float, x: Tensor) -> Tensor:
        if index >= injected or t == 0:
            return x
        return torch.where(generated, x, t * noise + (1 - t) * source)

    return inject


def restore_latents(edit: Edit, latents: Tensor) -> Tensor:
    """Return sampled latents of an edit with the source outside of its regions.

    T is the length of the edit. The crossfades lie outside of the regions. Beyond them the source is unchanged.
    """
    if not edit.keeps_source:
        return latents
    source = edit.source_latents.to(latents).expand_as(latents)
    mask = edit.generated_mask().expand(len(latents), -1).cpu()
    ramps = [soft_mask(len(row), mask_spans(row), edit.crossfade_frames) for row in mask]
    weight = torch.stack(ramps)[..., None].to(latents)
    mixed = weight * latents + (1 - weight) * source
    return torch.where(weight == 0, source, torch.where(weight == 1, latents, mixed))
