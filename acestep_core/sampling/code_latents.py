"""Audio codes of latents, and latents of audio codes."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ..callbacks import Callbacks
from ..errors import RequestError
from ..models.model import AceStepModel
from ..song.codes import Codes, check_codes

CODES_PER_CHUNK = 300  # one minute of audio between two checks for a cancel


def tokenize_latents(
    network: AceStepModel, latents: Tensor, device: torch.device | str = "cpu", callbacks: Callbacks | None = None
) -> tuple[Codes, ...]:
    """Return the audio codes of latents [B, T, 64], song by song. The network is ready to run on `device`.

    Raises RequestError if the checkpoint has no audio tokenizer, and Cancelled.
    """
    _require_tokenizer(network)
    callbacks, frames = callbacks or Callbacks(), CODES_PER_CHUNK * network.config.pool_window_size
    # One song at a time: a value near the border of two codes must not depend on the rest of the batch.
    chunks = [(song, chunk) for song, item in enumerate(latents) for chunk in item.split(frames)]
    codes: list[list[int]] = [[] for _ in latents]
    for done, (song, chunk) in enumerate(chunks, 1):
        callbacks.check("tokenize")
        codes[song] += network.tokenize(chunk[None].to(device))[0].tolist()
        callbacks.report("tokenize", done, len(chunks))
    return tuple(map(tuple, codes))


def detokenize_codes(network: AceStepModel, codes: Codes, device: torch.device | str = "cpu") -> Tensor:
    """Return the latents [1, 5 N, 64] of one song's N audio codes, float32. Raises RequestError for unknown codes."""
    _require_tokenizer(network)
    check_codes(codes, prod(network.config.fsq_input_levels))
    return network.detokenize(torch.tensor([codes], device=device)).float()


def _require_tokenizer(network: AceStepModel) -> None:
    if network.tokenizer is None or network.detokenizer is None:
        raise RequestError(
            "model: its checkpoint has no audio tokenizer, which audio codes need; use a cover without codes "
            "(use_codes off) or another checkpoint"
        )
