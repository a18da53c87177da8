"""Context latents: what the diffusion transformer sees beside the noisy latents."""

from __future__ import annotations

import torch

from ..config import MIN_FRAMES


def frames_to_run(frames: int) -> int:
    """The length to sample at for a song of `frames`: the models were made for MIN_FRAMES (5.12 s) and more.

    The latents are cropped back to `frames` after sampling.
    """
    return max(frames, MIN_FRAMES)


def text_to_music_context(silence: torch.Tensor, batch: int) -> torch.Tensor:
    """Context [batch, T, 128] for a song from text alone: silence as the source, and a mask of ones (generate all).

    `silence` is [1, T, 64] with T = frames_to_run(frames), as `AceStepModel.silence` gives it.
    """
    return torch.cat([silence, torch.ones_like(silence)], dim=-1).expand(batch, -1, -1)
