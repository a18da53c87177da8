"""The audio tokenizer: five latent frames (25 Hz) to one of 64000 audio codes (5 Hz), and back."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from .layers import ComputeDtype, Encoder, Ops, weight_and_bias


class FSQ(nn.Module):
    """Finite scalar quantiser, in float32. It rounds six values each to one of 8 or 5 levels in -1..1."""

    def __init__(self, size: int, levels: tuple[int, ...], ops: Ops, device, dtype):
        super().__init__()
        self.levels = levels
        self.project_in = ops.Linear(size, len(levels), device=device, dtype=dtype)
        self.project_out = ops.Linear(len(levels), size, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise [..., size] to codes [...] (int64) and embeddings [..., size] (float32)."""
        codes = codes_of(self.project(x), self.levels)
        return codes, self.embed(codes)

    def project(self, x: Tensor) -> Tensor:
        """Return the six values before rounding, softly clamped slightly beyond -1..1 to reach the outer levels."""
        z = self._linear(self.project_in, x)
        limit = 1 + 1 / _steps(self.levels, z)
        return limit * torch.tanh(z / limit)

    def embed(self, codes: Tensor) -> Tensor:
        """Embed codes [...] to [..., size]."""
        return self._linear(self.project_out, values_of(codes, self.levels))

    @staticmethod
    def _linear(layer: nn.Module, x: Tensor) -> Tensor:
        x = x.float()
        return F.linear(x, *weight_and_bias(layer, x))


def _steps(levels: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.tensor([level - 1 for level in levels], device=like.device, dtype=torch.float32)


def _bases(levels: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.tensor([prod(levels[:i]) for i in range(len(levels))], device=like.device)


def codes_of(z: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Clamp values z [..., 6] to -1..1, round each to the nearest level, and return the codes [...]."""
    level = torch.floor(_steps(levels, z) * (z.clamp(-1, 1) + 1) / 2 + 0.5).long()
    return (level * _bases(levels, z)).sum(-1)


def levels_of(codes: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Return the levels [..., 6] of codes [...], counted from 0."""
    return codes[..., None] // _bases(levels, codes) % torch.tensor(levels, device=codes.device)


def values_of(codes: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Return the values [..., 6], in -1..1, of codes [...]."""
    return 2 * levels_of(codes, levels) / _steps(levels, codes) - 1


class AttentionPooler(Encoder):
    """Pools five rows to one: a learned row is put before them and read after the layers."""

    def __init__(self, config: ModelConfig, ops: Ops, device, dtype):
        width = config.encoder_hidden_size
        super().__init__(width, config.num_attention_pooler_hidden_layers, config, ops, device, dtype)
        self.special_token = nn.Parameter(torch.zeros(1, 1, width, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Pool [N, 5, width] to [N, width]."""
        rows = self.embed_tokens(x)
        rows = torch.cat((self.special_token.to(rows).expand(len(rows), -1, -1), rows), dim=1)
        return self.transform(rows)[:, 0]


class AudioTokenizer(ComputeDtype):
    """Encodes latents as audio codes."""

    def __init__(self, config: ModelConfig, ops: Ops = nn, device=None, dtype=None):
        super().__init__()
        self.window = config.pool_window_size
        width = config.encoder_hidden_size
        self.audio_acoustic_proj = ops.Linear(config.audio_acoustic_hidden_dim, width, device=device, dtype=dtype)
        self.attention_pooler = AttentionPooler(config, ops, device, dtype)
        self.quantizer = FSQ(config.fsq_dim, config.fsq_input_levels, ops, device, dtype)

    def forward(self, latents: Tensor, silence: Tensor) -> tuple[Tensor, Tensor]:
        """Encode latents [B, T, 64] to codes [B, N] (int64) and embeddings [B, N, width], N = ceil(T / 5).

        silence: its first frames pad the last group, [1, at least 4, 64].
        """
        missing = -latents.shape[1] % self.window
        tail = silence[:, :missing].to(latents).expand(len(latents), -1, -1)
        rows = self.audio_acoustic_proj(torch.cat((latents, tail), dim=1).to(self.dtype))
        groups = rows.unflatten(1, (-1, self.window))
        codes, embeddings = self.quantizer(self.attention_pooler(groups.flatten(0, 1)).unflatten(0, groups.shape[:2]))
        return codes, embeddings.to(self.dtype)

    def embed(self, codes: Tensor) -> Tensor:
        """Embed codes [B, N] to [B, N, width]."""
        return self.quantizer.embed(codes).to(self.dtype)


class Detokenizer(ComputeDtype, Encoder):
    """Decodes embedded audio codes to latents. Each code becomes five rows, which differ by learned offsets."""

    def __init__(self, config: ModelConfig, ops: Ops = nn, device=None, dtype=None):
        width, window = config.encoder_hidden_size, config.pool_window_size
        super().__init__(width, config.num_attention_pooler_hidden_layers, config, ops, device, dtype)
        self.special_tokens = nn.Parameter(torch.zeros(1, window, width, device=device, dtype=dtype))
        self.proj_out = ops.Linear(width, config.audio_acoustic_hidden_dim, device=device, dtype=dtype)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Decode [B, N, width] to latents [B, 5 N, 64]."""
        rows = self.embed_tokens(embeddings.to(self.dtype)).flatten(0, 1)[:, None]
        rows = self.transform(rows + self.special_tokens.to(rows))
        return self.proj_out(rows).unflatten(0, embeddings.shape[:2]).flatten(1, 2)
