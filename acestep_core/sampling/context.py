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
    """Return the length to sample a song of `frames` at. Models are trained on MIN_FRAMES (5.12 s) and more.

    The latents are cropped to `frames` after sampling.
    """
    return max(frames, MIN_FRAMES)


def text_to_music_context(silence: Tensor, batch: int) -> Tensor:
    """Return the context [batch, T, 128] of a song from text: silence [1, T, 64] and a mask of ones (generate all)."""
    return torch.cat([silence, torch.ones_like(silence)], dim=-1).expand(batch, -1, -1)


def context_latents(
    network: AceStepModel,
    edit: Edit | None,
    batch: int,
    frames: int,
    device: torch.device | str = "cpu",
    callbacks: Callbacks | None = None,
) -> Tensor:
    """Return the context [batch, frames, 128], float32 on `device`, where the network is ready to run.

    edit: for one song or for `batch` songs. If `frames` exceeds its length, silence follows its source and is kept.

    Raises RequestError if the model does not know the audio codes of the edit, and Cancelled.
    """
    silence = network.silence(frames).to(device, torch.float32)
    if edit is None:
        return text_to_music_context(silence, batch)
    return _join(_source(network, edit, silence, callbacks), edit, batch, silence)


def silent_context(
    network: AceStepModel, edit: Edit, batch: int, frames: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the context [batch, frames, 128] that follows the text alone: silence under the mask of the edit."""
    silence = network.silence(frames).to(device, torch.float32)
    return _join(silence, edit, batch, silence)


def pad_with_silence(latents: Tensor, silence: Tensor) -> Tensor:
    """Crop or pad latents [B, T, 64] to the length of `silence` [1, frames, 64], with its values at each frame."""
    length = min(latents.shape[1], silence.shape[1])
    tail = silence[:, length:].expand(len(latents), -1, -1)
    return torch.cat([latents[:, :length].to(silence), tail], dim=1)


def codes_in_context(edit: Edit | None) -> int:
    """Return the number of audio codes of the longest song that the context is computed from, 0 for none."""
    if edit is None or edit.source_context is not SourceContext.CODES or not edit.use_codes:
        return 0
    return max(map(len, edit.codes)) if edit.codes else -(-edit.frames // FRAMES_PER_CODE)


def _join(source: Tensor, edit: Edit, batch: int, silence: Tensor) -> Tensor:
    """Concatenate a source [1 or items, frames, 64] and the mask of the edit to [batch, frames, 128]."""
    mask = _mask(edit, silence.shape[1]).to(silence)
    rows = max(len(source), len(mask))
    mask = mask[..., None].expand(rows, -1, silence.shape[-1])
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


def _mask(edit: Edit, frames: int) -> Tensor:
    """Return the values of the mask, [1 or items, frames]."""
    if edit.auto_mask:
        return torch.full((1, frames), AUTO_MASK)
    if not edit.is_partial:
        return torch.ones(1, frames)
    generated = edit.generated_mask().float()[:, :frames]
    return torch.nn.functional.pad(generated, (0, frames - generated.shape[1]))
