"""Context latents: the source and the mask that the diffusion transformer reads next to the noisy latents."""

from __future__ import annotations

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..config import FRAMES_PER_CODE, MIN_FRAMES
from ..edit.edit import AUTO_MASK, Edit
from ..edit.tasks import SourceContext
from ..models.model import AceStepModel
from .code_latents import detokenize_codes, tokenize_latents


def frames_to_run(frames: int) -> int:
    """Return the number of frames to sample for a song of `frames`. Training used at least MIN_FRAMES (5.12 s).

    The latents are cropped to `frames` after sampling.
    """
    return max(frames, MIN_FRAMES)


def context_latents(
    network: AceStepModel,
    edit: Edit | None,
    batch: int,
    frames: int,
    device: torch.device | str = "cpu",
    callbacks: Callbacks | None = None,
) -> Tensor:
    """Return the context [batch, frames, 128], float32. The network is ready to run on `device`.

    edit: for one song or for `batch` songs. If `frames` exceeds its length, silence follows the source and is kept.
        None is a song from text: silence and a mask of ones (generate all).

    Raises RequestError if the model does not know the audio codes of the edit, and Cancelled.
    """
    silence = network.silence(frames).to(device, torch.float32)
    return _join(silence if edit is None else _source(network, edit, silence, callbacks), edit, batch)


def silent_context(
    network: AceStepModel, edit: Edit | None, batch: int, frames: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the context [batch, frames, 128] without the source of the edit: silence under its mask."""
    return _join(network.silence(frames).to(device, torch.float32), edit, batch)


def pad_with_silence(latents: Tensor, silence: Tensor) -> Tensor:
    """Crop latents [B, T, 64] to the length of `silence` [1, frames, 64], or append the last frames of `silence`."""
    length = min(latents.shape[1], silence.shape[1])
    tail = silence[:, length:].expand(len(latents), -1, -1)
    return torch.cat([latents[:, :length].to(silence), tail], dim=1)


def codes_in_context(edit: Edit | None) -> int:
    """Return the number of audio codes in the context of the longest song, or 0 if the context has none."""
    if edit is None or edit.source_context is not SourceContext.CODES or not edit.use_codes:
        return 0
    return max(map(len, edit.codes)) if edit.codes else -(-edit.frames // FRAMES_PER_CODE)


def _join(source: Tensor, edit: Edit | None, batch: int) -> Tensor:
    """Concatenate a source [1 or items, frames, 64] and the mask of the edit to [batch, frames, 128]."""
    mask = _mask(edit, source.shape[1]).to(source)
    rows = max(len(source), len(mask))
    mask = mask[..., None].expand(rows, -1, source.shape[-1])
    return torch.cat([source.expand(rows, -1, -1), mask], dim=-1).expand(batch, -1, -1)


def _source(network: AceStepModel, edit: Edit, silence: Tensor, callbacks: Callbacks | None) -> Tensor:
    """Return the source as the transformer reads it, [1 or items, frames, 64]."""
    if codes_in_context(edit):
        codes = edit.codes or tokenize_latents(network, edit.source_latents, silence.device, callbacks)
        # A song without codes has silence.
        hints = {item: detokenize_codes(network, item, silence.device) if item else silence for item in set(codes)}
        return torch.cat([pad_with_silence(hints[item][:, : edit.frames], silence) for item in codes])
    source = pad_with_silence(edit.source_latents, silence)
    if edit.source_context is SourceContext.AROUND:
        generated = pad_with_silence(edit.generated_mask().float()[..., None], torch.zeros_like(silence[..., :1])) > 0
        source = torch.where(generated, silence, source)
    return source


def _mask(edit: Edit | None, frames: int) -> Tensor:
    """Return the values of the mask, [1 or items, frames]."""
    if edit is not None and edit.auto_mask:
        return torch.full((1, frames), AUTO_MASK)
    if edit is None or not edit.is_partial:
        return torch.ones(1, frames)
    generated = edit.generated_mask().float()[:, :frames]
    return torch.nn.functional.pad(generated, (0, frames - generated.shape[1]))
