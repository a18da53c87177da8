"""The planner's network: a Qwen3 decoder that writes into a static cache of keys and values.

Tensor names are the checkpoint's without their `model.` prefix. The output head is the embedding table, and only the
rows of it that a phase can choose from are ever multiplied: the text's, or the audio codes'.

Axis letters: B rows, P new positions, S cached positions, K key heads, G query heads per key head, D head width,
h width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import PlannerConfig
from ..models.layers import (
    Attention,
    ComputeDtype,
    Mlp,
    Ops,
    RMSNorm,
    Rotary,
    attend,
    rotary_tables,
    rotate,
    weight_and_bias,
)
from ..models.ops import PlainOps, linear

# In float16 the MLPs leave its range: their inner product reaches 85 000 and their output 2 080 000 in the released
# 1.7B planner. Both are computed this many times smaller. A power of two, so no digit is lost.
FLOAT16_SCALE = 128
PREFILL = 512  # positions of a prompt computed at a time: bounds working memory, and how long a stop has to wait
ROOM = 256  # slots by which the cache of a text grows


class Cache:
    """Keys and values of every layer for B rows, each [B, K, S, D]; row b fills from slot 0 on.

    A token's slot is its position. What lies beyond a row's length is never read, so it need not be cleared.
    """

    def __init__(self, config: PlannerConfig, rows: int, capacity: int, device: torch.device, dtype: torch.dtype):
        shape = (rows, config.num_key_value_heads, capacity, config.head_dim)
        self.keys, self.values = (
            [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_hidden_layers)] for _ in range(2)
        )
        self._theta = config.rope_theta
        self._set_rotary()

    def _set_rotary(self) -> None:
        self.rotary = rotary_tables(self.capacity, self.keys[0].shape[-1], self._theta, self.keys[0])

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    def rows(self, part: slice) -> Cache:
        """Some of the rows, sharing memory."""
        view = object.__new__(Cache)
        view.keys, view.values = ([layer[part] for layer in layers] for layers in (self.keys, self.values))
        view.rotary = self.rotary
        return view

    def copy_rows(self, sources: list[int], length: int) -> None:
        """Row b becomes what row sources[b] was, in the first `length` slots."""
        for layer in (*self.keys, *self.values):
            layer[:, :, :length] = layer[sources, :, :length]

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` slots, and some more, so that growing slot by slot copies seldom; layer by layer,
        so that it needs little beside what it makes."""
        if capacity <= self.capacity:
            return
        more = max(capacity - self.capacity, ROOM)
        for layers in (self.keys, self.values):
            for i, layer in enumerate(layers):
                layers[i] = F.pad(layer, (0, 0, 0, more))
        self._set_rotary()


@dataclass(frozen=True)
class Window:
    """What all layers share in one forward: which slots are written, which are seen, and the angles of the new ones."""

    rows: Tensor  # [B, 1]
    slots: Tensor  # [B, P]
    extent: int  # slots looked at: the first so many
    mask: Tensor  # additive, [B, 1, G * P, extent]
    rotary: Rotary  # each [B, 1, P, D / 2]
    query_rotary: Rotary  # each [B, 1, 1, P, D / 2]


class CachedAttention(Attention):
    """Causal grouped-query attention over the cache, to which it adds the new positions first."""

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, window: Window) -> Tensor:
        """x [B, P, h]; keys and values are this layer's cache [B, K, S, D], written to."""
        new_keys, new_values = self.keys_values(x)
        keys[window.rows, :, window.slots] = rotate(new_keys, window.rotary).transpose(1, 2)
        values[window.rows, :, window.slots] = new_values.transpose(1, 2)
        queries = rotate(self.queries(x), window.query_rotary)
        return self.merge(attend(queries, keys[:, :, : window.extent], values[:, :, : window.extent], window.mask))


class RangedMlp(Mlp):
    """SwiGLU that in float16 stays within its range: input float16, output float32."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float16:
            return super().forward(x)
        inner = F.silu(self.gate_proj(x), inplace=True).mul_(self.up_proj(x / FLOAT16_SCALE))
        return self.down_proj(inner).float().mul_(FLOAT16_SCALE)


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP. The residual stream may be wider (float32) than what the layers compute in."""

    def __init__(self, config: PlannerConfig, ops: Ops, device, dtype):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        self.input_layernorm = RMSNorm(width, eps, device, dtype)
        self.self_attn = CachedAttention(width, *heads, eps, ops, device, dtype)
        self.post_attention_layernorm = RMSNorm(width, eps, device, dtype)
        self.mlp = RangedMlp(width, config.intermediate_size, ops, device, dtype)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, window: Window) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x).to(keys), keys, values, window)
        return x + self.mlp(self.post_attention_layernorm(x).to(keys))


class PlannerNetwork(ComputeDtype, nn.Module):
    """Token ids to final hidden states, and these to logits.

    Computes in `dtype` (see ComputeDtype); in float16 the residual stream is float32, as massive activations need it.
    """

    def __init__(self, config: PlannerConfig, ops: Ops = PlainOps, device=None, dtype=None):
        super().__init__()
        self.config = config
        self.embed_tokens = ops.Embedding(config.vocab_size, config.hidden_size, device=device, dtype=dtype)
        inside = getattr(ops, "layers", ops)
        self.layers = nn.ModuleList(
            DecoderLayer(config, inside, device, dtype) for _ in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, device, dtype)

    def cache(self, rows: int, capacity: int, device: torch.device) -> Cache:
        return Cache(self.config, rows, capacity, device, self.dtype)

    def head(self, rows: slice, device: torch.device) -> Tensor:
        """These rows of the output head [n, h], ready to be multiplied: fetch them once per run, not per token."""
        like = torch.empty((), device=device, dtype=self.dtype)
        return weight_and_bias(self.embed_tokens, like)[0][rows]

    def forward(self, tokens: Tensor, starts: Tensor, cache: Cache, extent: int) -> Tensor:
        """Final hidden states [B, P, h] of tokens [B, P] that stand at positions starts [B], starts + 1, ...

        `extent`: a number of slots, not less than the largest start + P, within the cache. Rows shorter than P are
        filled up on the right with anything: their later slots are overwritten before they are ever seen.
        """
        dtype = self.dtype
        window = self._window(tokens, starts, cache, extent)
        x = self.embed_tokens(tokens).to(torch.float32 if dtype == torch.float16 else dtype)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            x = layer(x, keys, values, window)
        return self.norm(x).to(dtype)

    def _window(self, tokens: Tensor, starts: Tensor, cache: Cache, extent: int) -> Window:
        config = self.config
        rows, new = tokens.shape
        slots = starts[:, None] + torch.arange(new, device=tokens.device)
        hidden = torch.arange(extent, device=tokens.device) > slots[:, :, None]
        mask = torch.zeros(hidden.shape, device=tokens.device, dtype=self.dtype).masked_fill_(hidden, float("-inf"))
        groups = config.num_attention_heads // config.num_key_value_heads
        cos, sin = (table[slots][:, None] for table in cache.rotary)
        return Window(
            rows=torch.arange(rows, device=tokens.device)[:, None],
            slots=slots,
            extent=extent,
            mask=mask.repeat(1, groups, 1)[:, None],
            rotary=(cos, sin),
            query_rotary=(cos[:, None], sin[:, None]),
        )


def logits(hidden: Tensor, head: Tensor) -> Tensor:
    """Float32 logits [..., n] of hidden states [..., h] over n rows of the head."""
    return linear(hidden, head).float()


def planner_bytes(config: PlannerConfig, rows: int, tokens: int, itemsize: int, stored: bool = False) -> int:
    """What a run needs beside the weights: the cache of `rows` rows (unconditional ones count) of `tokens` tokens each,
    and the working memory of choosing among the whole vocabulary. `itemsize`: bytes of the compute dtype. `stored`:
    matrices are kept smaller than that, and one at a time is restored.
    """
    cached = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * itemsize
    choosing = 6 * 4 * config.vocab_size  # logits, guided, probabilities, sorted with their places, sums
    prefill = PREFILL * (4 * config.intermediate_size + 8 * config.hidden_size) * itemsize
    restored = config.hidden_size * config.intermediate_size * itemsize if stored else 0
    return rows * ((tokens + ROOM) * cached + choosing) + prefill + restored
