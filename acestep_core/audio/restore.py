"""Level and splice of an edit: what was made is fitted to its source, never the other way round."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..config import SAMPLE_RATE, samples_of
from .splice import soft_mask, splice

LOUDEST = 2.0  # no autoencoder is further off than this
WINDOW = SAMPLE_RATE // 20
QUIET = 0.01  # −40 dBFS: below, an autoencoder's own noise is as loud as the music


def restore_source(
    generated: torch.Tensor, source: torch.Tensor, regions: Sequence[tuple[float, float]], crossfade: float
) -> torch.Tensor:
    """`splice` of what the VAE made [B, 2, N], brought to the level of the source [1 or B, 2, N] first.

    The level is compared where both have the same music, outside of the regions. Full scale is the limit of what was
    made; the source is left as it is, whatever its level.
    """
    length = min(generated.shape[-1], source.shape[-1])
    spans = [(samples_of(start), samples_of(end)) for start, end in regions]
    made = generated * _gain(generated[..., :length], source[..., :length], soft_mask(length, spans, 0) == 0)
    near = soft_mask(length, spans, samples_of(crossfade)) > 0
    peak = made[..., :length][..., near].abs().amax(dim=(1, 2), keepdim=True)
    return splice(made / peak.clamp(min=1), source, regions, crossfade)


def _gain(generated: torch.Tensor, source: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """What brings `generated` to the level of the source, [B, 1, 1], by the windows of `kept` that are loud in both.

    1 where there are none: a silent or faded rest does not tell how loud the music is.
    """
    whole = kept[: len(kept) // WINDOW * WINDOW].view(-1, WINDOW).all(dim=1)
    given, wanted = (_power(waveform)[:, whole] for waveform in (generated, source))
    loud = (given > QUIET**2) & (wanted > QUIET**2)
    given, wanted = (torch.where(loud, power, 0).sum(dim=1) for power in (given, wanted))
    gain = torch.where(loud.any(dim=1), wanted / given, 1).sqrt()
    return gain.clamp(1 / LOUDEST, LOUDEST)[:, None, None]


def _power(waveform: torch.Tensor) -> torch.Tensor:
    """The mean square of each window, [B, windows]."""
    whole = waveform[..., : waveform.shape[-1] // WINDOW * WINDOW]
    return whole.square().mean(dim=1).unflatten(-1, (-1, WINDOW)).mean(dim=-1)
