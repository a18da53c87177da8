"""The diffusion transformer. It predicts the velocity (noise - data) of latents at time t, from 1 (noise) to 0 (data).

`prepare` computes once per song what does not depend on the step; `forward` is one step.

Axis letters: B songs, T latent frames, P = ceil(T / 2) patches, S condition rows, h width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from .layers import (
    Attention,
    AttentionFunction,
    Band,
    ComputeDtype,
    LayerStack,
    Mlp,
    Ops,
    RMSNorm,
    Rotary,
    make_band,
    rotary_tables,
    weight_and_bias,
)


@dataclass(frozen=True)
class TimeState:
    """Output of a time embedder, float32: `state` [B, 1, h] and the six modulation rows `rows` [B, 6, h]."""

    state: Tensor
    rows: Tensor

    def __add__(self, other: TimeState) -> TimeState:
        return TimeState(self.state + other.state, self.rows + other.rows)


@dataclass(frozen=True)
class CrossState:
    """Input of one layer's cross-attention: keys and values [B or 1, K, S, D].

    songs: B.
    null: added to unconditional rows instead of attention, [1, 1, h].
    probe: gets the normalised queries [B, K, G, P, D] of the conditional rows, a CPU's in chunks of positions.
    """

    songs: int
    keys: Tensor
    values: Tensor
    null: Tensor | None
    probe: Callable[[Tensor], None] | None = None


@dataclass(frozen=True)
class Prepared:
    """The inputs that all steps of a batch of songs share, computed by `DiT.prepare`."""

    frames: int
    patches: Tensor  # context half of the patch embedding, bias included, [B, P, h]
    patch_weight: Tensor  # its noisy-latent half, [h, patch * 64]
    cross: Sequence[CrossState]
    mask: Tensor | None  # [B, 1, 1, S], True where a condition row is real
    rotary: Rotary
    band: Band | None
    step_offset: TimeState  # time_embed_r at t - r = 0
    modulation: Tensor  # of all layers, from `DiTLayer.modulation_rows`, [L, 8, 1, h]
    last: Tensor  # the last modulation table and the weight of the last norm, float32, [3, h]
    velocity_weight: Tensor  # the last projection, float32, [patch * 64, h]
    velocity_bias: Tensor  # float32, [64]


class TimeEmbedding(nn.Module):
    """Sinusoids of 1000 t, an MLP, and the projection to six modulation rows."""

    frequencies = 128

    def __init__(self, width: int, ops: Ops, device, dtype):
        super().__init__()
        self.linear_1 = ops.Linear(2 * self.frequencies, width, device=device, dtype=dtype)
        self.linear_2 = ops.Linear(width, width, device=device, dtype=dtype)
        self.time_proj = ops.Linear(width, 6 * width, device=device, dtype=dtype)

    def forward(self, t: Tensor, dtype: torch.dtype) -> TimeState:
        """Embed t [B]. The angles need float32: in bfloat16, 1000 t would be off by up to two."""
        index = torch.arange(self.frequencies, device=t.device, dtype=torch.float32)
        angles = 1000 * t.float()[:, None] * torch.exp(-math.log(10_000) / self.frequencies * index)
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype)
        state = self.linear_2(F.silu(self.linear_1(waves)))
        rows = self.time_proj(F.silu(state)).unflatten(-1, (6, -1))
        return TimeState(state[:, None].float(), rows.float())


class DiTLayer(nn.Module):
    """Self-attention, cross-attention and MLP. The time modulates and gates self-attention and MLP."""

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
        attention: AttentionFunction | None = None,
    ) -> Tensor:
        """Transform x [B, P, h] by modulation [6, B, 1, h], in the dtype of x.

        modulation: shift, factor and gate of self-attention, then those of the MLP.

        Rows of x beyond the condition's batch are unconditional.
        """
        shift, factor, gate, *mlp_modulation = modulation
        attended = self.self_attn(self.self_attn_norm.modulated(x, shift, factor), rotary, band, attention)
        x = torch.addcmul(x, attended, gate)
        return self.positionwise(x, mlp_modulation, cross, mask, attention)

    def positionwise(
        self,
        x: Tensor,
        mlp_modulation: Sequence[Tensor],
        cross: CrossState,
        mask: Tensor | None,
        attention: AttentionFunction | None,
    ) -> Tensor:
        """Cross-attention and MLP, whose result at a position depends on x [B, P, h] at that position alone."""
        x = self._cross(x, cross, mask, attention)
        shift, factor, gate = mlp_modulation
        return torch.addcmul(x, self.mlp(self.mlp_norm.modulated(x, shift, factor)), gate)

    def _cross(self, x: Tensor, cross: CrossState, mask: Tensor | None, attention: AttentionFunction | None) -> Tensor:
        normed = self.cross_attn_norm(x[: cross.songs])
        if cross.probe is not None:
            cross.probe(self.cross_attn.queries(normed))
        attended = self.cross_attn.cross(normed, cross.keys, cross.values, mask, attention)
        unconditional = len(x) - len(attended)
        if unconditional:
            assert cross.null is not None, "`prepare` had no null condition"
            attended = torch.cat((attended, cross.null.expand(unconditional, x.shape[1], -1)))
        return x + attended

    def cross_state(self, condition: Tensor, null: Tensor | None, songs: int) -> CrossState:
        """Project embedded condition rows to keys and values, and the embedded null row to its constant."""
        keys, values = self.cross_attn.keys_values(condition)
        if keys.device.type == "cpu":  # whose kernels round otherwise if one sequence holds all songs
            keys, values = (rows.expand(songs, -1, -1, -1) for rows in (keys, values))
        return CrossState(songs, keys, values, None if null is None else self.cross_attn.constant(null))

    def modulation_rows(self, device: torch.device) -> Tensor:
        """Return the modulation table and the weights of the two norms that it modulates, float32, [8, 1, h].

        The result is a copy, because a streamed layer leaves the device after its turn.
        """
        norms = (norm.weight[None] for norm in (self.self_attn_norm, self.mlp_norm))
        return torch.cat([rows.to(device, torch.float32) for rows in (self.scale_shift_table[0], *norms)])[:, None]


class DiT(ComputeDtype):
    """Diffusion transformer over patches of two latent frames. Even layers are windowed, odd layers are not.

    attention: a host's replacement for torch's unmasked attention.
    """

    attention: AttentionFunction | None = None

    def __init__(self, config: ModelConfig, ops: Ops = nn, device=None, dtype=None):
        super().__init__()
        self.config = config
        width, patch, latent = config.hidden_size, config.patch_size, config.audio_acoustic_hidden_dim
        options = {"device": device, "dtype": dtype}
        patching = {"kernel_size": patch, "stride": patch, **options}
        # The original wraps both convolutions in a Sequential after a transposition, hence the names proj_*.1.
        self.proj_in = nn.Sequential(nn.Identity(), ops.Conv1d(config.in_channels, width, **patching))
        self.proj_out = nn.Sequential(nn.Identity(), ops.ConvTranspose1d(width, latent, **patching))
        self.time_embed = TimeEmbedding(width, ops, device, dtype)
        self.time_embed_r = TimeEmbedding(width, ops, device, dtype)
        self.condition_embedder = ops.Linear(config.encoder_hidden_size, width, **options)
        layer_ops = getattr(ops, "layers", ops)
        self.layers = LayerStack(DiTLayer(config, layer_ops, device, dtype) for _ in range(config.num_hidden_layers))
        self.norm_out = RMSNorm(width, config.rms_norm_eps, device, dtype)
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 2, width, **options))

    def prepare(
        self,
        context: Tensor,
        condition: Tensor,
        mask: Tensor | None = None,
        null: Tensor | None = None,
        depth: int | None = None,
    ) -> Prepared:
        """Compute what all steps of B songs share.

        context: cat(source latents, mask), [B, T, 128].
        condition, mask: [B, S, e] and [B, S] from `stack_conditions`, or one condition [1, S, e] for all songs.
        null: the model's null condition [1, 1, e]. `forward` needs it for unconditional rows.
        depth: number of layers that `forward` runs. None is all of them, which a velocity needs.
        """
        config, device = self.config, context.device
        context, condition = context.to(self.dtype), condition.to(self.dtype)
        weight, bias = weight_and_bias(self.proj_in[1], context)
        context_size = context.shape[-1]
        patches = F.linear(self._patch(context), _patch_matrix(weight[:, :context_size]), bias)
        embedded = self.condition_embedder(condition)
        embedded_null = None if null is None else self.condition_embedder(null.to(condition))
        length, groups = patches.shape[1], config.num_attention_heads // config.num_key_value_heads
        cross, modulation = [], []
        for layer in islice(self.layers.iterate(), depth):
            cross.append(layer.cross_state(embedded, embedded_null, len(context)))
            modulation.append(layer.modulation_rows(device))
        last = (self.scale_shift_table[0], self.norm_out.weight[None])
        velocity_weight, velocity_bias = weight_and_bias(self.proj_out[1], torch.empty(0, device=device))
        return Prepared(
            frames=context.shape[1],
            patches=patches,
            patch_weight=_patch_matrix(weight[:, context_size:]),
            cross=cross,
            mask=None if mask is None else mask[:, None, None],
            rotary=rotary_tables(length, config.head_dim, config.rope_theta, patches),
            band=make_band(length, config.sliding_window, groups, patches),
            # At inference r = t. The embedding of zero is a learned offset, not zero.
            step_offset=self.time_embed_r(torch.zeros(1, device=device), self.dtype),
            modulation=torch.stack(modulation),
            last=torch.cat([rows.to(device, torch.float32) for rows in last]),
            velocity_weight=velocity_weight.permute(2, 1, 0).flatten(0, 1),
            velocity_bias=velocity_bias,
        )

    def forward(self, x: Tensor, t: Tensor, prepared: Prepared) -> Tensor:
        """Return the velocity [B, T, 64], float32, of noisy latents x [B, T, 64] at times t [B], float32.

        If `prepared` has a null condition, x may have 2 B rows: all songs with their condition, then all without.
        """
        time = self.time_embed(t, self.dtype) + prepared.step_offset
        repeats = len(x) // len(t)
        modulation = _modulate_layers(prepared.modulation, time.rows.repeat(repeats, 1, 1)).to(self.dtype)
        hidden = F.linear(self._patch(x.to(self.dtype)), prepared.patch_weight)
        hidden = (hidden.unflatten(0, (-1, len(prepared.patches))) + prepared.patches).flatten(0, 1)
        for index, (cross, layer) in enumerate(zip(prepared.cross, self.layers.iterate(), strict=False)):
            band = prepared.band if index % 2 == 0 else None
            run = layer if cross.probe is None else layer.forward  # a compiled layer would be compiled for each probe
            hidden = run(hidden, modulation[index], prepared.rotary, band, cross, prepared.mask, self.attention)
        return self._unpatch(hidden, time.state.repeat(repeats, 1, 1), prepared)

    def _patch(self, x: Tensor) -> Tensor:
        """Group [B, T, c] to [B, P, patch * c], with zeros at the end of the last patch."""
        patch = self.config.patch_size
        return F.pad(x, (0, 0, 0, -x.shape[1] % patch)).unflatten(1, (-1, patch)).flatten(2)

    def _unpatch(self, hidden: Tensor, state: Tensor, prepared: Prepared) -> Tensor:
        """Apply the last norm and projection in float32, from [B, P, h] to [B, frames, 64]."""
        hidden = hidden.float()
        table, norm = prepared.last.split((2, 1))
        shift, scale = (table + state).split(1, dim=1)
        hidden = self.norm_out.modulated(hidden, shift, norm * (1 + scale))
        bias = prepared.velocity_bias
        out = F.linear(hidden, prepared.velocity_weight).unflatten(-1, (-1, len(bias))) + bias
        return out.flatten(1, 2)[:, : prepared.frames]


def _modulate_layers(tables: Tensor, rows: Tensor) -> Tensor:
    """Return shift, factor and gate of the two norms of all layers, float32, [L, 6, B, 1, h].

    tables: [L, 8, 1, h], see `DiTLayer.modulation_rows`. rows: of the time, [B, 6, h].
    """
    table, norms = tables.split((6, 2), dim=1)
    shift, scale, gate = (table + rows.transpose(0, 1)).unflatten(1, (2, 3)).unbind(2)  # each [L, 2, B, h]
    return torch.stack((shift, norms * (1 + scale), gate), dim=2).flatten(1, 2).unsqueeze(3)


def _patch_matrix(weight: Tensor) -> Tensor:
    """Flatten a convolution [h, c, patch], whose stride is its kernel, to the matrix [h, patch * c]."""
    return weight.transpose(1, 2).flatten(1)
