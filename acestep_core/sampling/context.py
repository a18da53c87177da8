"""Context latents: what the diffusion transformer sees beside the noisy latents."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch

from ..callbacks import Callbacks
from ..config import FRAMES_PER_CODE, MIN_FRAMES
from ..edit.edit import AUTO_MASK, Edit
from ..edit.tasks import SourceContext
from ..errors import RequestError
from ..song.codes import Codes, check_codes

if TYPE_CHECKING:
    from ..models.model import AceStepModel

CODES_PER_CHUNK = 300  # a minute of sound: what is heard between two looks at whether to stop


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


def context_latents(
    network: AceStepModel,
    edit: Edit | None,
    batch: int,
    frames: int,
    device: torch.device | str = "cpu",
    callbacks: Callbacks | None = None,
) -> torch.Tensor:
    """Context [batch, frames, 128], float32 on `device`, where the network is ready to run.

    Where `frames` is more than the edit's own, silence follows its source, and is kept. Raises RequestError when the
    edit is for another number of songs, or its codes are not this model's.
    """
    silence = network.silence(frames).to(device, torch.float32)
    if edit is None:
        return text_to_music_context(silence, batch)
    if edit.items not in (1, batch):
        raise RequestError(
            f"the edit is for {edit.items} songs, and the batch is {batch}: one for all, or one for each"
        )
    source, mask = _source(network, edit, silence, callbacks), _mask(edit, frames).to(silence)
    rows = max(len(source), len(mask))
    mask = mask[..., None].expand(rows, -1, silence.shape[-1])
    return torch.cat([source.expand(rows, -1, -1), mask], dim=-1).expand(batch, -1, -1)


def silent_context(
    network: AceStepModel, edit: Edit, batch: int, frames: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """What takes the place of `context` once the edit lets go of its source: silence, under the same mask."""
    silence = network.silence(frames).to(device, torch.float32)
    mask = _mask(edit, frames).to(silence)[..., None].expand(-1, -1, silence.shape[-1])
    return torch.cat([silence.expand(len(mask), -1, -1), mask], dim=-1).expand(batch, -1, -1)


def pad_with_silence(latents: torch.Tensor, silence: torch.Tensor) -> torch.Tensor:
    """Latents [B, T, 64] as long as `silence` [1, frames, 64], which goes on where they end."""
    length = min(latents.shape[1], silence.shape[1])
    tail = silence[:, length:].expand(len(latents), -1, -1)
    return torch.cat([latents[:, :length].to(silence), tail], dim=1)


def tokenize_latents(
    network: AceStepModel, latents: torch.Tensor, device: torch.device | str = "cpu", callbacks: Callbacks | None = None
) -> tuple[Codes, ...]:
    """The codes of latents [B, T, 64], song by song, the network being ready to run on `device`."""
    _require_tokenizer(network)
    callbacks, frames = callbacks or Callbacks(), CODES_PER_CHUNK * network.config.pool_window_size
    # One by one: a value on the border between two codes must not depend on its neighbours in a batch.
    work = [(song, piece) for song, item in enumerate(latents) for piece in item.split(frames)]
    codes: list[list[int]] = [[] for _ in latents]
    for done, (song, piece) in enumerate(work, 1):
        callbacks.check("tokenize")
        codes[song] += network.tokenize(piece[None].to(device))[0].tolist()
        callbacks.report("tokenize", done, len(work))
    return tuple(map(tuple, codes))


def codes_in_context(edit: Edit | None) -> int:
    """How many audio codes a song of the edit goes through to become context; 0 where it does not."""
    if edit is None or edit.task.source is not SourceContext.CODES or not edit.use_codes:
        return 0
    return max(map(len, edit.codes)) if edit.codes else -(-edit.frames // FRAMES_PER_CODE)


def _source(network: AceStepModel, edit: Edit, silence: torch.Tensor, callbacks: Callbacks | None) -> torch.Tensor:
    """The source as the model is to see it, [1 or items, frames, 64]."""
    if codes_in_context(edit):
        codes = edit.codes or tokenize_latents(network, edit.source, silence.device, callbacks)
        hints = {item: _hint(network, item, silence) for item in set(codes)}
        length = edit.frames
        return torch.cat([pad_with_silence(hints[item][:, :length], silence) for item in codes])
    source = pad_with_silence(edit.source, silence)
    if edit.task.source is SourceContext.AROUND:
        made = pad_with_silence(edit.generated().float()[..., None], torch.zeros_like(silence[..., :1])) > 0
        source = torch.where(made, silence, source)
    return source


def _hint(network: AceStepModel, codes: Codes, silence: torch.Tensor) -> torch.Tensor:
    """The latents that one song's codes stand for; a song without codes has silence."""
    if not codes:
        return silence
    _require_tokenizer(network)
    check_codes(codes, prod(network.config.fsq_input_levels))
    return network.detokenize(torch.tensor([codes], device=silence.device)).float()


def _mask(edit: Edit, frames: int) -> torch.Tensor:
    """The mask's values, [1 or items, frames]."""
    if edit.auto_mask:
        return torch.full((1, frames), AUTO_MASK)
    if not edit.is_partial:
        return torch.ones(1, frames)
    made = edit.generated().float()[:, :frames]
    return torch.nn.functional.pad(made, (0, frames - made.shape[1]))


def _require_tokenizer(network: AceStepModel) -> None:
    if network.tokenizer is None or network.detokenizer is None:
        raise RequestError(
            "this checkpoint has no audio tokenizer, which audio codes need: use a cover without codes (use_codes "
            "off), or another checkpoint"
        )
