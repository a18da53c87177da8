"""The whole diffusion model. Its parts are named as in the original checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .audio_tokenizer import AudioTokenizer, Detokenizer
from .condition import ConditionEncoder
from .dit import DiT, Prepared
from .layers import Ops


class AceStepModel(nn.Module):
    """Diffusion transformer, condition encoder, audio tokenizer and detokenizer of one checkpoint.

    ops: namespace of the transformer's layer classes.
    encoder_ops: namespace of the other parts, `ops` by default. They compute in its `compute_dtype` if it has one (see
        `CastOps`).
    silence_latent: the encoded silence [1, F, 64]. It is not part of the state dict.
    """

    silence_latent: Tensor | None = None

    def __init__(self, config: ModelConfig, ops: Ops = nn, device=None, dtype=None, encoder_ops: Ops | None = None):
        super().__init__()
        self.config = config
        encoder_ops = encoder_ops or ops
        self.decoder = DiT(config, ops, device, dtype)
        self.encoder = ConditionEncoder(config, encoder_ops, device, dtype)
        self.tokenizer = AudioTokenizer(config, encoder_ops, device, dtype)
        self.detokenizer = Detokenizer(config, encoder_ops, device, dtype)
        for part in (self.encoder, self.tokenizer, self.detokenizer):
            part.compute_dtype = getattr(encoder_ops, "compute_dtype", None)
        self.null_condition_emb = nn.Parameter(
            torch.zeros(1, 1, config.encoder_hidden_size, device=device, dtype=dtype)
        )

    def forward(self, x: Tensor, t: Tensor, prepared: Prepared) -> Tensor:
        """Run one step of the transformer, see `DiT.forward`. A host may compile this method."""
        return self.decoder(x, t, prepared)

    def silence(self, frames: int) -> Tensor:
        """Return latents of silence, [1, frames, 64]. Beyond the stored length the last frame is repeated."""
        assert self.silence_latent is not None, "the loader sets silence_latent"
        known = self.silence_latent[:, :frames]
        return torch.cat((known, known[:, -1:].expand(-1, frames - known.shape[1], -1)), dim=1)

    def tokenize(self, latents: Tensor) -> Tensor:
        """Encode latents [B, T, 64] as audio codes [B, ceil(T / 5)]."""
        return self.tokenizer(latents, self.silence(self.config.pool_window_size))[0]

    def detokenize(self, codes: Tensor) -> Tensor:
        """Decode audio codes [B, N] to latents [B, 5 N, 64]."""
        return self.detokenizer(self.tokenizer.embed(codes))
