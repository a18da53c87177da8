"""The diffusion transformer: predicts the velocity (noise - data) of a song's latents at time t, 1 = noise, 0 = data.

`prepare` does once per song what does not depend on the step; `forward` is one step.

Axis letters: B songs, T latent frames, P = ceil(T / 2) patches, S condition rows, h width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from .layers import (
    Attend,
    Attention,
    Band,
    ComputeDtype,
    Layers,
    Mlp,
    Ops,
    RMSNorm,
    Rotary,
    make_band,
    rotary_tables,
    weight_and_bias,
)
from .ops import PlainOps, fast_products


@dataclass(frozen=True)
class TimeState:
    """Output of a time embedder, float32: `state` [B, 1, h] and the six modulation rows `rows` [B, 6, h]."""

    state: Tensor
    rows: Tensor

    def __add__(self, other: TimeState) -> TimeState:
        return TimeState(self.state + other.state, self.rows + other.rows)


@dataclass(frozen=True)
class CrossState:
    """What one layer's cross-attention needs: keys and values [B, K, S, D]; what it adds to unconditional rows."""

    keys: Tensor
    values: Tensor
    null: Tensor | None  # [1, 1, h]


@dataclass(frozen=True)
class Prepared:
    """Everything about a batch of songs that stays the same from step to step. Made by `DiT.prepare`."""

    frames: int
    patches: Tensor  # context half of the patch embedding, bias included, [B, P, h]
    patch_weight: Tensor  # its noisy-latent half, [h, patch * 64]
    cross: Sequence[CrossState]
    mask: Tensor | None  # [B, 1, 1, S], True where a condition row is real
    rotary: Rotary
    band: Band | None
    step_offset: TimeState  # time_embed_r at t - r = 0


class TimeEmbedding(nn.Module):
    """Sinusoids of 1000 t, an MLP, and the projection to six modulation rows."""

    frequencies = 128

    def __init__(self, width: int, ops: Ops, device, dtype):
        super().__init__()
        self.linear_1 = ops.Linear(2 * self.frequencies, width, device=device, dtype=dtype)
        self.linear_2 = ops.Linear(width, width, device=device, dtype=dtype)
        self.time_proj = ops.Linear(width, 6 * width, device=device, dtype=dtype)

    def forward(self, t: Tensor, dtype: torch.dtype) -> TimeState:
        """t [B]. The angles need float32: in bfloat16 1000 t would be off by up to two."""
        index = torch.arange(self.frequencies, device=t.device, dtype=torch.float32)
        angles = 1000 * t.float()[:, None] * torch.exp(-math.log(10_000) / self.frequencies * index)
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype)
        state = self.linear_2(F.silu(self.linear_1(waves)))
        rows = self.time_proj(F.silu(state)).unflatten(-1, (6, -1))
        return TimeState(state[:, None].float(), rows.float())


class DiTLayer(nn.Module):
    """Self-attention and MLP, both modulated and gated by time; between them plain cross-attention."""

    def __init__(self, config: ModelConfig, ops: Ops, device, dtype):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        self.self_attn_norm = RMSNorm(width, eps, device, dtype)
        self.self_attn = Attention(width, *heads, eps, ops, device, dtype)
        self.cross_attn_norm = RMSNorm(width, eps, device, dtype)
        self.cross_attn = Attention(width, *heads, eps, ops, device, dtype)
        self.mlp_norm = RMSNorm(width, eps, device, dtype)
        self.mlp = Mlp(width, config.intermediate_size, ops, device, dtype)
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 6, width, device=device, dtype=dtype))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        rotary: Rotary,
        band: Band | None,
        cross: CrossState,
        mask: Tensor | None,
        by: Attend | None = None,
    ) -> Tensor:
        """x [B, P, h], modulation [B, 6, h]. Rows of x beyond the condition's batch are unconditional."""
        modulation = self.scale_shift_table.to(modulation) + modulation
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation.split(1, dim=1)
        attended = self.self_attn(self.self_attn_norm.modulated(x, shift, scale), rotary, band, by)
        x = torch.addcmul(x, attended, gate.to(x))

        def finish(x: Tensor) -> Tensor:
            x = self._cross(x, cross, mask, by)
            fed = self.mlp(self.mlp_norm.modulated(x, mlp_shift, mlp_scale))
            return torch.addcmul(x, fed, mlp_gate.to(x))

        restored = self.mlp.up_proj.weight.dtype != x.dtype  # at each use, so the fewer of them the better
        turns = -(-x.shape[1] // rows_at_a_time(x.shape[2]))
        if x.device.type != "cpu" or restored or turns == 1:
            return finish(x)
        return torch.cat([finish(rows) for rows in x.chunk(turns, dim=1)], dim=1)

    def _cross(self, x: Tensor, cross: CrossState, mask: Tensor | None, by: Attend | None) -> Tensor:
        given = x[: len(cross.keys)]
        given = given + self.cross_attn.cross(self.cross_attn_norm(given), cross.keys, cross.values, mask, by)
        if len(given) == len(x):
            return given
        return torch.cat((given, x[len(given) :] + cross.null))

    def cross_state(self, condition: Tensor, null: Tensor | None, songs: int) -> CrossState:
        """Keys and values of embedded condition rows, and the constant that the embedded null row stands for."""
        keys, values = (rows.expand(songs, -1, -1, -1) for rows in self.cross_attn.keys_values(condition))
        return CrossState(keys, values, None if null is None else self.cross_attn.constant(null))


class DiT(ComputeDtype, nn.Module):
    """Diffusion transformer over patches of two latent frames; even layers see a window, odd layers everything.

    attention: what a host wants attention by instead of torch's, where nothing is masked.
    """

    attention: Attend | None = None

    def __init__(self, config: ModelConfig, ops: Ops = PlainOps, device=None, dtype=None):
        super().__init__()
        self.config = config
        width, patch, latent = config.hidden_size, config.patch_size, config.audio_acoustic_hidden_dim
        made = {"device": device, "dtype": dtype}
        patching = {"kernel_size": patch, "stride": patch, **made}
        # The original wraps both convolutions in a Sequential after a transposition, hence the names proj_*.1.
        self.proj_in = nn.Sequential(nn.Identity(), ops.Conv1d(config.in_channels, width, **patching))
        self.proj_out = nn.Sequential(nn.Identity(), ops.ConvTranspose1d(width, latent, **patching))
        self.time_embed = TimeEmbedding(width, ops, device, dtype)
        self.time_embed_r = TimeEmbedding(width, ops, device, dtype)
        self.condition_embedder = ops.Linear(config.encoder_hidden_size, width, **made)
        inside = getattr(ops, "layers", ops)
        self.layers = Layers(DiTLayer(config, inside, device, dtype) for _ in range(config.num_hidden_layers))
        self.norm_out = RMSNorm(width, config.rms_norm_eps, device, dtype)
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 2, width, **made))

    def prepare(
        self, context: Tensor, condition: Tensor, mask: Tensor | None = None, null: Tensor | None = None
    ) -> Prepared:
        """What all steps share, for B songs.

        `context` [B, T, 128] is cat(source latents, mask); `condition` [B, S, e] and `mask` [B, S] (True where real,
        None where nothing is padded) come from `stack_conditions`, or one condition [1, S, e] serves every song; `null`
        [1, 1, e] is the model's null condition, given when `forward` shall also take unconditional rows.
        """
        config = self.config
        context, condition = context.to(self.dtype), condition.to(self.dtype)
        weight, bias = weight_and_bias(self.proj_in[1], context)
        known = context.shape[-1]
        patches = F.linear(self._patch(context), _patch_matrix(weight[:, :known]), bias)
        embedded = self.condition_embedder(condition)
        embedded_null = None if null is None else self.condition_embedder(null.to(condition))
        length, groups = patches.shape[1], config.num_attention_heads // config.num_key_value_heads
        return Prepared(
            frames=context.shape[1],
            patches=patches,
            patch_weight=_patch_matrix(weight[:, known:]),
            cross=[layer.cross_state(embedded, embedded_null, len(context)) for layer in self.layers.in_turn()],
            mask=None if mask is None else mask[:, None, None],
            rotary=rotary_tables(length, config.head_dim, config.rope_theta, patches),
            band=make_band(length, config.sliding_window, groups, patches),
            # At inference r = t. The embedding of zero is a learned offset, not nothing.
            step_offset=self.time_embed_r(torch.zeros(1, device=context.device), self.dtype),
        )

    def forward(self, x: Tensor, t: Tensor, prepared: Prepared) -> Tensor:
        """Velocity [B, T, 64], float32, of noisy latents x [B, T, 64] at times t [B], float32.

        With a `Prepared` made with `null`, x may have 2 B rows: the songs with their condition, then again without.
        """
        time = self.time_embed(t, self.dtype) + prepared.step_offset
        times = len(x) // len(t)
        modulation = time.rows.repeat(times, 1, 1)
        hidden = F.linear(self._patch(x.to(self.dtype)), prepared.patch_weight)
        hidden = (hidden.unflatten(0, (-1, len(prepared.patches))) + prepared.patches).flatten(0, 1)
        for index, layer in enumerate(self.layers.in_turn()):
            band = prepared.band if index % 2 == 0 else None
            seen = band, prepared.cross[index], prepared.mask
            hidden = layer(hidden, modulation, prepared.rotary, *seen, self.attention)
        return self._unpatch(hidden, time.state.repeat(times, 1, 1), prepared.frames)

    def _patch(self, x: Tensor) -> Tensor:
        """[B, T, c] to [B, P, patch * c], the last patch filled up with zeros."""
        patch = self.config.patch_size
        return F.pad(x, (0, 0, 0, -x.shape[1] % patch)).unflatten(1, (-1, patch)).flatten(2)

    def _unpatch(self, hidden: Tensor, state: Tensor, frames: int) -> Tensor:
        """The last norm and projection, in float32: [B, P, h] to [B, frames, 64]."""
        hidden = hidden.float()
        shift, scale = (self.scale_shift_table.to(state) + state).split(1, dim=1)
        hidden = self.norm_out.modulated(hidden, shift, scale)
        weight, bias = weight_and_bias(self.proj_out[1], hidden)
        out = F.linear(hidden, weight.permute(2, 1, 0).flatten(0, 1)).unflatten(-1, (-1, len(bias))) + bias
        return out.flatten(1, 2)[:, :frames]


def rows_at_a_time(width: int) -> int:
    """On a CPU what a layer does position by position is done for about so many.

    What lies between its steps then stays in the cache, and needs no fresh memory from the system, which costs more
    than the arithmetic. Wide matrices want more at a time, as each turn reads them anew; oneDNN does in any case.
    """
    return 2048 if fast_products() else max(512, width // 2)


def _patch_matrix(weight: Tensor) -> Tensor:
    """A convolution whose stride is its kernel [h, c, patch] as the matrix [h, patch * c] it is."""
    return weight.transpose(1, 2).flatten(1)
