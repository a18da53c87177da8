"""The planner's network: a Qwen3 decoder with a static KV cache.

Tensor names are the checkpoint's without their `model.` prefix. The output head is the embedding table. Text and audio
codes each multiply only their own rows of the head.

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
    TiedHead,
    attend,
    rotary_tables,
    rotate,
    weight_and_bias,
)
from .split_attention import attend_split, key_chunks, split_bias

# The MLPs of the released 1.7B planner exceed float16: their inner product reaches 85,000 and their output 2,080,000.
# In float16 both are computed this many times smaller. A power of two loses no digit.
FLOAT16_SCALE = 128
PREFILL_CHUNK = 512  # positions of a prompt in one forward: limits working memory and the time until a stop
CACHE_GROWTH = 256  # slots that the cache of a text grows by


class KVCache:
    """Keys and values of every layer for B rows, each [B, K, S, D].

    A token's slot is its position in the row. Attention never reads beyond a row's length, so slots are not cleared.
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

    def rows(self, part: slice) -> KVCache:
        """Return a view of some rows, which shares memory."""
        view = object.__new__(KVCache)
        view.keys, view.values = ([layer[part] for layer in layers] for layers in (self.keys, self.values))
        view.rotary = self.rotary
        return view

    def copy_rows(self, sources: list[int], length: int) -> None:
        """Copy the first `length` slots of row sources[b] to row b, for every b."""
        for layer in (*self.keys, *self.values):
            layer[:, :, :length] = layer[sources, :, :length]

    def reserve(self, capacity: int) -> None:
        """Grow to at least `capacity` slots, by CACHE_GROWTH or more, so that appending tokens seldom copies.

        Layers grow one after the other, so that only one of them is held twice.
        """
        if capacity <= self.capacity:
            return
        more = max(capacity - self.capacity, CACHE_GROWTH)
        for layers in (self.keys, self.values):
            for i, layer in enumerate(layers):
                layers[i] = F.pad(layer, (0, 0, 0, more))
        self._set_rotary()


@dataclass(frozen=True)
class AttentionWindow:
    """The inputs of one forward that all layers share."""

    rows: Tensor  # [B, 1]
    slots: Tensor  # [B, P], written by this forward
    split: bool  # over the keys, see `attend_split`
    extent: int  # number of slots that attention covers, from the first on
    mask: Tensor  # additive, [B, 1, G * P, extent]; for split attention see `split_bias`
    rotary: Rotary  # [B, 1, P, D] and [B, 1, P, D / 2]
    query_rotary: Rotary  # [B, 1, 1, P, D] and [B, 1, 1, P, D / 2]


class CachedAttention(Attention):
    """Causal grouped-query attention over the cache."""

    def forward(  # type: ignore[override]
        self, x: Tensor, keys: Tensor, values: Tensor, window: AttentionWindow
    ) -> Tensor:
        """Write new positions x [B, P, h] to this layer's cache, keys and values [B, K, S, D], then attend to it."""
        new_keys, new_values = self.keys_values(x)
        keys[window.rows, :, window.slots] = rotate(new_keys, window.rotary).transpose(1, 2)
        values[window.rows, :, window.slots] = new_values.transpose(1, 2)
        queries = rotate(self.queries(x), window.query_rotary)
        seen_keys, seen_values = keys[:, :, : window.extent], values[:, :, : window.extent]
        attention = attend_split if window.split else attend
        return self.merge(attention(queries, seen_keys, seen_values, window.mask))


class RangedMlp(Mlp):
    """SwiGLU that does not overflow in float16. For float16 input the output is float32."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float16:
            return super().forward(x)
        inner = F.silu(self.gate_proj(x), inplace=True).mul_(self.up_proj(x / FLOAT16_SCALE))
        return self.down_proj(inner).float().mul_(FLOAT16_SCALE)


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP. The residual stream may be float32 while both compute in float16."""

    def __init__(self, config: PlannerConfig, ops: Ops, device, dtype):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        self.input_layernorm = RMSNorm(width, eps, device, dtype)
        self.self_attn = CachedAttention(width, *heads, eps, ops, device, dtype)
        self.post_attention_layernorm = RMSNorm(width, eps, device, dtype)
        self.mlp = RangedMlp(width, config.intermediate_size, ops, device, dtype)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, window: AttentionWindow) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x).to(keys), keys, values, window)
        return x + self.mlp(self.post_attention_layernorm(x).to(keys))


class PlannerNetwork(ComputeDtype, nn.Module):
    """A Qwen3 decoder from token ids to final hidden states.

    It computes in `dtype` (see ComputeDtype). In float16 the residual stream is float32, because it would overflow.
    """

    def __init__(self, config: PlannerConfig, ops: Ops = nn, device=None, dtype=None):
        super().__init__()
        self.config = config
        self.embed_tokens = ops.Embedding(config.vocab_size, config.hidden_size, device=device, dtype=dtype)
        inside = getattr(ops, "layers", ops)
        self.layers = nn.ModuleList(
            DecoderLayer(config, inside, device, dtype) for _ in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, device, dtype)
        self.lm_head = TiedHead()

    def cache(self, rows: int, capacity: int, device: torch.device) -> KVCache:
        return KVCache(self.config, rows, capacity, device, self.dtype)

    def head(self, rows: slice, device: torch.device) -> Tensor:
        """Return some rows of the output head [n, h], on the device. Call it once per run, not per token."""
        weight, _ = weight_and_bias(self.embed_tokens, torch.empty((), device=device, dtype=self.dtype))
        if weight is self.embed_tokens.weight:
            return weight[rows]
        return weight[rows].clone()  # frees the copy of the other rows

    def logits(self, hidden: Tensor, head: Tensor) -> Tensor:
        """Return float32 logits [..., n] of hidden states [..., h] over the n rows of `head`."""
        return self.lm_head(hidden, head).float()

    def forward(
        self, tokens: Tensor, starts: Tensor, cache: KVCache, extent: int, table: Tensor | None = None
    ) -> Tensor:
        """Return final hidden states [B, P, h] of tokens [B, P] at positions starts [B], starts + 1, ...

        extent: number of slots that attention covers, from the largest start + P to the capacity of the cache.
        table: rows of `head` that `tokens` count from, instead of the embedding layer. An offloaded layer would wait
            for the tokens, and send their embeddings.

        Rows shorter than P may be padded on the right with any token. Later tokens overwrite those slots before
        attention reads them.
        """
        dtype = self.dtype
        window = self._window(tokens, starts, cache, extent)
        embedded = self.embed_tokens(tokens) if table is None else F.embedding(tokens, table)
        x = embedded.to(torch.float32 if dtype == torch.float16 else dtype)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            x = layer(x, keys, values, window)
        return self.norm(x).to(dtype)

    def _window(self, tokens: Tensor, starts: Tensor, cache: KVCache, extent: int) -> AttentionWindow:
        config = self.config
        rows, new = tokens.shape
        slots = starts[:, None] + torch.arange(new, device=tokens.device)
        future = torch.arange(extent, device=tokens.device) > slots[:, :, None]
        heads = config.num_key_value_heads
        groups = config.num_attention_heads // heads
        chunks = key_chunks(tokens.device, rows * heads, extent) if new == 1 else 1
        if chunks > 1:
            mask = split_bias(future[:, 0], heads, groups, chunks, self.dtype)
        else:
            mask = torch.zeros(future.shape, device=tokens.device, dtype=self.dtype).masked_fill_(future, float("-inf"))
            mask = mask.repeat(1, groups, 1)[:, None]
        cos, sin = (table[slots][:, None] for table in cache.rotary)
        return AttentionWindow(
            rows=torch.arange(rows, device=tokens.device)[:, None],
            slots=slots,
            split=chunks > 1,
            extent=extent,
            mask=mask,
            rotary=(cos, sin),
            query_rotary=(cos[:, None], sin[:, None]),
        )


def planner_bytes(config: PlannerConfig, rows: int, tokens: int, itemsize: int, quantized: bool = False) -> int:
    """Return the bytes that a run needs in addition to the weights: KV cache, sampling and working memory.

    rows: rows in the batch, including those of negative prompts.
    tokens: tokens of each row.
    itemsize: bytes per value of the compute dtype.
    quantized: the weights are stored in fewer bytes, so one matrix at a time is dequantised.
    """
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * itemsize
    sampling = 6 * 4 * config.vocab_size  # logits, guided, probabilities, sorted values and indices, sums
    prefill = PREFILL_CHUNK * (4 * config.intermediate_size + 8 * config.hidden_size) * itemsize
    dequantized = config.hidden_size * config.intermediate_size * itemsize if quantized else 0
    return rows * ((tokens + CACHE_GROWTH) * per_token + sampling) + prefill + dequantized
