"""Masks: which latent frames of a song are generated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import HOP, samples_of
from ..errors import RequestError

GENERATE_FROM = 0.5  # from this value of a soft mask on, a frame is generated


def region_mask(regions: Sequence[tuple[float, float | None]], frames: int) -> Tensor:
    """Return a mask [1, frames] that is True inside of the regions. Without regions it is True everywhere."""
    mask = torch.full((1, frames), not regions)
    for start, end in regions:
        first = min(_frame_of(start), frames - 1)
        last = frames if end is None else min(_frame_of(end), frames)
        mask[:, first : max(first + 1, last)] = True
    return mask


def mask_spans(mask: Tensor) -> list[tuple[int, int]]:
    """Return start and end of every run of True in a mask [T]."""
    edges = torch.diff(mask.to(torch.int8), prepend=torch.zeros(1), append=torch.zeros(1)).nonzero().flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def check_mask(mask: Tensor, frames: int) -> Tensor:
    """Return a soft mask [T] or [B, T], 1 = generate, as booleans [1 or B, T]. Raises RequestError."""
    if not isinstance(mask, Tensor) or mask.ndim not in (1, 2) or 0 in mask.shape:
        given = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise RequestError(f"mask must be a tensor [frames] or [batch, frames], got {given}")
    if mask.shape[-1] != frames:
        raise RequestError(f"mask: {mask.shape[-1]} frames long, the source is {frames} (25 per second)")
    values = mask.detach().to("cpu", torch.float32)
    if not (torch.isfinite(values).all() and 0 <= values.min() and values.max() <= 1):
        raise RequestError("mask must hold values from 0 (keep) to 1 (generate), got others")
    generated = (values >= GENERATE_FROM).reshape(-1, frames)
    if not generated.any(dim=1).all():
        raise RequestError(f"mask: empty for at least one song; mark what to generate with {GENERATE_FROM:g} to 1")
    return generated


def noise_mask(mask: Tensor, frames: int) -> Tensor:
    """Resize the `noise_mask` of a LATENT like `frames_mask`. Its last axis must already be `frames` long."""
    if mask.ndim == 0 or mask.shape[-1] != frames:
        raise RequestError(
            f"noise mask: {mask.shape[-1] if mask.ndim else 0} frames long, the song is {frames} (25 per second); "
            "connect a mask to the input mask instead, where any size is stretched to the song"
        )
    return frames_mask(mask, frames)


def frames_mask(mask: Tensor, frames: int) -> Tensor:
    """Resize an image mask [..., width] along time to [frames], or to [batch, frames].

    The last axis is time and the first the batch. Axes between them are averaged.
    """
    if mask.ndim == 0 or 0 in mask.shape:
        raise RequestError(f"mask needs at least one value, got the shape {list(mask.shape)}")
    mask = mask.detach().to("cpu", torch.float32)
    rows = mask.reshape(1 if mask.ndim == 1 else len(mask), -1, mask.shape[-1]).mean(dim=1, keepdim=True)
    if mask.shape[-1] < frames:
        resized = F.interpolate(rows, frames, mode="linear", align_corners=False)[:, 0]
    else:
        resized = F.interpolate(rows, frames, mode="area")[:, 0]
    return resized[0] if len(resized) == 1 else resized


def _frame_of(seconds: float) -> int:
    return samples_of(seconds) // HOP
