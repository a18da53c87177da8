"""Level and splice of an edit: what was made is fitted to its source, never the other way round."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..config import SAMPLE_RATE
from .splice import soft_mask, splice

LOUDEST = 2.0  # no autoencoder is further off than this; a greater factor would come from parts that are all but silent


def put_back(
    generated: torch.Tensor, source: torch.Tensor, regions: Sequence[tuple[float, float]], crossfade: float
) -> torch.Tensor:
    """`splice` of what the VAE made [B, 2, N], brought to the level of the source [1 or B, 2, N] first.

    The level is compared where both have the same music, outside of the regions. Full scale is the limit of what was
    made; the source is left as it is, whatever its level.
    """
    length = min(generated.shape[-1], source.shape[-1])
    spans = [(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE)) for start, end in regions]
    kept = soft_mask(length, spans, 0) == 0
    made = generated
    if kept.any():
        wanted, given = (_level(waveform[..., :length][..., kept]) for waveform in (source, generated))
        made = generated * (wanted / given.clamp(min=1e-6)).clamp(1 / LOUDEST, LOUDEST)
    near = soft_mask(length, spans, int(crossfade * SAMPLE_RATE)) > 0
    peak = made[..., :length][..., near].abs().amax(dim=(1, 2), keepdim=True)
    return splice(made / peak.clamp(min=1), source, regions, crossfade)


def _level(waveform: torch.Tensor) -> torch.Tensor:
    return waveform.square().mean(dim=(1, 2), keepdim=True).sqrt()
