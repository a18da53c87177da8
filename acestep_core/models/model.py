"""The whole diffusion model, its parts named as in the original checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .audio_tokenizer import AudioTokenizer, Detokenizer
from .condition import ConditionEncoder
from .dit import DiT, Prepared
from .layers import Ops
from .ops import PlainOps


class AceStepModel(nn.Module):
    """Diffusion transformer, condition encoder, audio tokenizer and detokenizer of one checkpoint.

    `ops` makes the layers of the transformer, `encoder_ops` those of the rest (default: the same). Where `encoder_ops`
    has a `compute_dtype` (see `CastOps`), the rest computes in it.
    """

    silence_latent: Tensor | None = None  # [1, F, 64], what the VAE makes of silence; not part of the state dict

    def __init__(
        self, config: ModelConfig, ops: Ops = PlainOps, device=None, dtype=None, encoder_ops: Ops | None = None
    ):
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
        """One step of the transformer, see `DiT.forward`: what a host calls, and may have compiled."""
        return self.decoder(x, t, prepared)

    def silence(self, frames: int) -> Tensor:
        """Latents of silence, [1, frames, 64]. Beyond the stored length its last frame goes on: silence is steady."""
        known = self.silence_latent[:, :frames]
        return torch.cat((known, known[:, -1:].expand(-1, frames - known.shape[1], -1)), dim=1)

    def tokenize(self, latents: Tensor) -> Tensor:
        """Audio codes [B, ceil(T / 5)] of latents [B, T, 64]."""
        return self.tokenizer(latents, self.silence(self.config.pool_window_size))[0]

    def detokenize(self, codes: Tensor) -> Tensor:
        """Latents [B, 5 N, 64] that audio codes [B, N] stand for."""
        return self.detokenizer(self.tokenizer.embed(codes))
