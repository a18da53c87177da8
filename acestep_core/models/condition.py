"""The condition encoder: caption, lyrics and timbre references become the rows that the DiT attends to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from .layers import ComputeDtype, Encoder, Ops


class TimbreEncoder(Encoder):
    """Encodes each reference to one vector, which is row 0 after the layers.

    XL checkpoints put a learned row before the frames. The others read the first frame; their learned row is unused.
    """

    def __init__(self, config: ModelConfig, ops: Ops, device, dtype):
        super().__init__(config.timbre_hidden_dim, config.num_timbre_encoder_hidden_layers, config, ops, device, dtype)
        self.special_token = nn.Parameter(torch.zeros(1, 1, config.encoder_hidden_size, device=device, dtype=dtype))

    def forward(self, latents: Tensor) -> Tensor:
        """Encode reference latents [N, frames, 64] to [N, width]."""
        rows = self.embed_tokens(latents)
        if self.config.is_xl:
            rows = torch.cat((self.special_token.to(rows).expand(len(rows), -1, -1), rows), dim=1)
        return self.transform(rows)[:, 0]


class ConditionEncoder(ComputeDtype):
    """Encodes unpadded songs: every row of an input is a real token. `stack_conditions` batches the results."""

    def __init__(self, config: ModelConfig, ops: Ops = nn, device=None, dtype=None):
        super().__init__()
        width = config.encoder_hidden_size
        self.text_projector = ops.Linear(config.text_hidden_dim, width, bias=False, device=device, dtype=dtype)
        self.lyric_encoder = Encoder(
            config.text_hidden_dim, config.num_lyric_encoder_hidden_layers, config, ops, device, dtype
        )
        self.timbre_encoder = TimbreEncoder(config, ops, device, dtype)

    def forward(self, text: Tensor, lyrics: Tensor, timbre: Tensor) -> Tensor:
        """Return the condition [B, Ll + R + Lt, width], in the order lyrics, references, text.

        text: hidden states of the caption, [B, Lt, 1024].
        lyrics: token embeddings, [B, Ll, 1024].
        timbre: latents of R references, [B, R, frames, 64].
        """
        text, lyrics, timbre = (x.to(self.dtype) for x in (text, lyrics, timbre))
        references = self.timbre_encoder(timbre.flatten(0, 1)).unflatten(0, timbre.shape[:2])
        return torch.cat((self.lyric_encoder(lyrics), references, self.text_projector(text)), dim=1)


def stack_conditions(items: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Pad conditions [1, S_i, width] to one batch [B, S, width], and return it with its mask [B, S].

    The mask is True where a row is real. It is None if all lengths are equal.
    """
    lengths = [item.shape[1] for item in items]
    longest = max(lengths)
    stacked = torch.cat([F.pad(item, (0, 0, 0, longest - item.shape[1])) for item in items])
    if min(lengths) == longest:
        return stacked, None
    positions = torch.arange(longest, device=stacked.device)
    return stacked, positions < torch.tensor(lengths, device=stacked.device)[:, None]
