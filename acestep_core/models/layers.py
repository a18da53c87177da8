"""Building blocks shared by the diffusion transformer and the encoders.

They follow the original model: RMSNorm, SwiGLU, half-split rotary positions, and grouped-query attention with RMSNorm
on queries and keys. Every even layer is windowed: query i attends to key j if |i - j| <= window.

Axis letters: B batch, P positions, S keys, H query heads, K key/value heads, G = H / K query heads per key head,
D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig

# A namespace with Linear, Embedding, Conv1d and ConvTranspose1d, called as torch.nn's are. Its optional `layers` is
# another such namespace, for the transformer layers of the DiT or the planner.
Ops: TypeAlias = "ModuleType | type[Any]"
Rotary: TypeAlias = "tuple[Tensor, Tensor]"  # cosines of both halves [P, D], sines of one [P, D / 2]
# Unmasked attention of q [B, K, P, D] to k, v [B, K, S, D], returning q's shape.
AttentionFunction: TypeAlias = "Callable[[Tensor, Tensor, Tensor], Tensor]"

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
MAX_SCORES = 2**26  # attention scores in memory at a time: 256 MiB in float32


def weight_and_bias(layer: Any, like: Tensor) -> tuple[Tensor, Any]:
    """Return the weight and bias (or None) of an `ops` layer in the dtype and on the device of `like`.

    A layer that stores its weights otherwise (offloaded, quantised, patched) has a method of this name.
    """
    own = getattr(layer, "weight_and_bias", None)
    if own is not None:
        return own(like)
    bias = getattr(layer, "bias", None)  # an Embedding has no such attribute
    return layer.weight.to(like), None if bias is None else bias.to(like)


class ComputeDtype(nn.Module):
    """A network with a `dtype` to compute in: `compute_dtype` if set, else the dtype of its weights."""

    compute_dtype: torch.dtype | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.compute_dtype or next(self.parameters()).dtype


class LayerStack(nn.ModuleList):
    """The layers of a transformer.

    stream: brings each layer to the device for its turn. `runtime.streaming.Stream` sets it while it is in use.
    """

    stream: Callable[[LayerStack], Iterable[Any]] | None = None

    def iterate(self) -> Iterable[Any]:
        """Yield the layers in order. Each is ready to run until the next one is requested."""
        return self if self.stream is None else self.stream(self)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, with the mean of squares in float32."""

    def __init__(self, size: int, eps: float, device=None, dtype=None):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x), self.eps)

    def modulated(self, x: Tensor, shift: Tensor, factor: Tensor) -> Tensor:
        """Return x / rms(x) * factor + shift. Shift and factor, which includes the weight: [B, 1, size]."""
        return torch.addcmul(shift, F.rms_norm(x, x.shape[-1:], None, self.eps), factor)


def rotary_tables(length: int, width: int, theta: float, like: Tensor) -> Rotary:
    """Return cosines [length, width] and sines [length, width / 2] for positions 0..length-1.

    The angles are computed in float32; the tables have the dtype and device of `like`.
    """
    exponents = torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width
    positions = torch.arange(length, device=like.device, dtype=torch.float32)
    angles = torch.outer(positions, theta**-exponents)
    return angles.cos().to(like).repeat(1, 2), angles.sin().to(like)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Apply rotary positions, half-split: (x1 cos - x2 sin, x2 cos + x1 sin). x: [..., P, D]."""
    cos, sin = rotary
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin, value=-1)
    out[..., half:].addcmul_(x[..., :half], sin)
    return out


@dataclass(frozen=True)
class Band:
    """The blocks and masks of windowed attention: a first block, `blocks` equal middle blocks, and the rest.

    A block of `window` queries attends to its own keys and `window` more on each side. The first block has no keys on
    its left, the rest none on its right. All masks are thus slices of one small mask, and nothing needs padding. Masks
    are additive, in the compute dtype, with one copy of the rows per query group.
    """

    window: int
    blocks: int
    first: Tensor
    middle: Tensor
    last: Tensor


def make_band(length: int, window: int, groups: int, like: Tensor) -> Band | None:
    """Return the band for `length` positions, or None if the window covers all of them."""
    if length <= window + 1:
        return None
    blocks = max(0, length // window - 2)
    rest = length - window * (blocks + 1)
    queries = torch.arange(2 * window, device=like.device)[:, None] + window
    keys = torch.arange(3 * window, device=like.device)
    hidden = (queries - keys).abs() > window
    mask = torch.zeros(hidden.shape, device=like.device, dtype=like.dtype).masked_fill(hidden, float("-inf"))
    return Band(
        window,
        blocks,
        first=mask[:window, window : window + min(length, 2 * window)].repeat(groups, 1),
        middle=mask[:window].repeat(groups, 1),
        last=mask[:rest, : rest + window].repeat(groups, 1),
    )


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, attention: AttentionFunction | None = None
) -> Tensor:
    """Return the attention of q [B, K, G, P, D] to k, v [B, K, S, D], in q's shape.

    The query groups are folded into the query length. Keys and values are thus never repeated, and every backend of
    scaled_dot_product_attention qualifies. `mask` broadcasts to [B, K, G * P, S]. Without a mask, `attention` replaces
    torch's.
    """
    if attention is not None and mask is None:
        return attention(q.flatten(2, 3), k, v).view(q.shape)
    sdpa = _chunked_attention if materialises_scores(q.device) else F.scaled_dot_product_attention
    return sdpa(q.flatten(2, 3), k, v, attn_mask=mask).view(q.shape)


def materialises_scores(device: torch.device) -> bool:
    """True if SDPA may materialise the full attention matrix: on MPS, XPU and ROCm without flash attention."""
    return device.type in ("mps", "xpu") or (device.type == "cuda" and torch.version.hip is not None)


def misreads_masks(device: torch.device) -> bool:
    """True if a kernel of SDPA is wrong with a mask: on ROCm before torch 2.7 (pytorch#147460)."""
    return device.type == "cuda" and torch.version.hip is not None and TORCH < (2, 7)


def misreads_overlaps(device: torch.device) -> bool:
    """True if SDPA may misread overlapping views: on MPS, where Metal gets the strides themselves."""
    return device.type == "mps"


def _chunked_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None) -> Tensor:
    """Compute the attention of q [B, K, P, D] in chunks of queries, with at most MAX_SCORES scores in memory.

    More than 4 GiB of scores end a process on Metal without an error (pytorch#149261), and exceed the largest
    allocation on Intel GPUs.
    """
    rows = max(1, MAX_SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
    chunks = q.split(rows, dim=2)
    if attn_mask is None or attn_mask.shape[-2] == 1:
        masks = (attn_mask,) * len(chunks)
    else:
        masks = attn_mask.split(rows, dim=-2)
    sdpa = _attention_by_parts if misreads_masks(q.device) else F.scaled_dot_product_attention
    return torch.cat([sdpa(chunk, k, v, attn_mask=mask) for chunk, mask in zip(chunks, masks, strict=True)], dim=2)


def _attention_by_parts(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None) -> Tensor:
    """Compute F.scaled_dot_product_attention, if there is a mask by products and a softmax in float32."""
    if attn_mask is None:
        return F.scaled_dot_product_attention(q, k, v)
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    else:
        scores = scores + attn_mask
    return scores.softmax(-1, dtype=torch.float32).to(v) @ v


def attend_banded(q: Tensor, k: Tensor, v: Tensor, band: Band) -> Tensor:
    """`attend` restricted to |i - j| <= window. Exact; time and memory grow with length times window."""
    w = band.window
    parts = [attend(q[..., :w, :], k[..., : 2 * w, :], v[..., : 2 * w, :], band.first)]
    if band.blocks:
        parts.append(_attend_blocks(q, k, v, band))
    rest = w * (band.blocks + 1)
    parts.append(attend(q[..., rest:, :], k[..., rest - w :, :], v[..., rest - w :, :], band.last))
    return torch.cat(parts, dim=-2)


def _attend_blocks(q: Tensor, k: Tensor, v: Tensor, band: Band) -> Tensor:
    """Compute all middle blocks in one call: the block axis joins the batch, and keys are overlapping views."""
    w, n = band.window, band.blocks
    batch, heads = k.shape[:2]
    blocks = q[..., w : w * (n + 1), :].unflatten(3, (n, w)).transpose(2, 3).flatten(0, 1)
    keys, values = (x[..., : w * (n + 2), :].unfold(2, 3 * w, w).transpose(-1, -2).flatten(0, 1) for x in (k, v))
    if misreads_overlaps(k.device):
        keys, values = keys.contiguous(), values.contiguous()
    out = attend(blocks, keys, values, band.middle)
    return out.unflatten(0, (batch, heads)).transpose(2, 3).flatten(3, 4)


class Attention(nn.Module):
    """Grouped-query attention, bias-free, with RMSNorm on queries and keys per head."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int, eps: float, ops: Ops, device, dtype):
        super().__init__()
        self.kv_heads = kv_heads
        self.groups = heads // kv_heads
        self.head_dim = head_dim
        options = {"bias": False, "device": device, "dtype": dtype}
        self.q_proj = ops.Linear(width, heads * head_dim, **options)
        self.k_proj = ops.Linear(width, kv_heads * head_dim, **options)
        self.v_proj = ops.Linear(width, kv_heads * head_dim, **options)
        self.o_proj = ops.Linear(heads * head_dim, width, **options)
        self.q_norm = RMSNorm(head_dim, eps, device, dtype)
        self.k_norm = RMSNorm(head_dim, eps, device, dtype)

    def forward(
        self, x: Tensor, rotary: Rotary, band: Band | None, attention: AttentionFunction | None = None
    ) -> Tensor:
        """Self-attention over [B, P, width], windowed if there is a `band`."""
        q = rotate(self.queries(x), rotary)
        k, v = self.keys_values(x)
        k = rotate(k, rotary)
        return self.merge(attend(q, k, v, None, attention) if band is None else attend_banded(q, k, v, band))

    def cross(
        self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, attention: AttentionFunction | None = None
    ) -> Tensor:
        """Cross-attention of x [B, P, width] to keys and values from `keys_values`, without positions.

        Keys and values of one item serve all of x.
        """
        if len(k) == 1 < len(x):  # as one sequence, as some kernels misread keys that are expanded over a batch
            rows = self.cross(x.flatten(0, 1)[None], k, v, mask, attention)
            return rows.view(x.shape)
        return self.merge(attend(self.queries(x), k, v, mask, attention))

    def queries(self, x: Tensor) -> Tensor:
        """Return normalised queries [B, K, G, P, D]."""
        q = self.q_norm(self.q_proj(x).unflatten(-1, (self.kv_heads, self.groups, self.head_dim)))
        return q.permute(0, 2, 3, 1, 4)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised keys and values, each [B, K, S, D]."""
        k, v = (p(x).unflatten(-1, (self.kv_heads, self.head_dim)) for p in (self.k_proj, self.v_proj))
        return self.k_norm(k).transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous()

    def merge(self, out: Tensor) -> Tensor:
        """Project the heads [B, K, G, P, D] to [B, P, width]."""
        return self.o_proj(out.permute(0, 3, 1, 2, 4).flatten(2))

    def constant(self, x: Tensor) -> Tensor:
        """Return the cross-attention to one row x [1, 1, width]: its projected value, the same for any query."""
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, 1, self.head_dim))
        return self.o_proj(v.expand(-1, -1, -1, self.groups, -1).flatten(2))


class Mlp(nn.Module):
    """SwiGLU, bias-free."""

    def __init__(self, width: int, inner: int, ops: Ops, device, dtype):
        super().__init__()
        options = {"bias": False, "device": device, "dtype": dtype}
        self.gate_proj = ops.Linear(width, inner, **options)
        self.up_proj = ops.Linear(width, inner, **options)
        self.down_proj = ops.Linear(inner, width, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x), inplace=True).mul_(self.up_proj(x)))


class TiedHead(nn.Module):
    """Output head that shares the embedding table. It has no weight of its own."""

    def forward(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """Return logits [..., n] of hidden states [..., h] over n `rows` of the table, [n, h]."""
        return F.linear(hidden, rows)


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, config: ModelConfig, ops: Ops, device, dtype):
        super().__init__()
        width, eps = config.encoder_hidden_size, config.rms_norm_eps
        heads = (config.encoder_num_attention_heads, config.encoder_num_key_value_heads, config.head_dim)
        self.input_layernorm = RMSNorm(width, eps, device, dtype)
        self.self_attn = Attention(width, *heads, eps, ops, device, dtype)
        self.post_attention_layernorm = RMSNorm(width, eps, device, dtype)
        self.mlp = Mlp(width, config.encoder_intermediate_size, ops, device, dtype)

    def forward(self, x: Tensor, rotary: Rotary, band: Band | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, band)
        return x + self.mlp(self.post_attention_layernorm(x))


class Encoder(nn.Module):
    """The transformer inside the lyric and timbre encoders, the audio tokenizer and the detokenizer.

    It is a projection to the encoder width, layers (even ones windowed), and a final norm. Rows are never padding.
    """

    def __init__(self, in_size: int, depth: int, config: ModelConfig, ops: Ops, device, dtype):
        super().__init__()
        self.config = config
        width = config.encoder_hidden_size
        self.embed_tokens = ops.Linear(in_size, width, device=device, dtype=dtype)
        self.layers = LayerStack(EncoderLayer(config, ops, device, dtype) for _ in range(depth))
        self.norm = RMSNorm(width, config.rms_norm_eps, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Encode [B, P, in_size] to [B, P, width]."""
        return self.transform(self.embed_tokens(x))

    def transform(self, x: Tensor) -> Tensor:
        """Apply layers and norm to embedded rows [B, P, width]."""
        config, length = self.config, x.shape[1]
        groups = config.encoder_num_attention_heads // config.encoder_num_key_value_heads
        rotary = rotary_tables(length, config.head_dim, config.rope_theta, x)
        band = make_band(length, config.sliding_window, groups, x)
        for index, layer in enumerate(self.layers.iterate()):
            x = layer(x, rotary, band if index % 2 == 0 else None)
        return self.norm(x)
