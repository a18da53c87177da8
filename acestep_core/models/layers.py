"""Building blocks shared by the diffusion transformer and the encoders.

Facts are those of the original model: RMSNorm, grouped-query attention with RMSNorm on queries and keys, half-split
rotary positions, SwiGLU, and in every even layer a window: key j is visible to query i iff |i - j| <= window.

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

# Has Linear, Embedding, Conv1d, ConvTranspose1d with torch.nn's signatures; may have `layers`, another one for the
# layers of the DiT or the planner.
Ops: TypeAlias = "ModuleType | type[Any]"
Rotary: TypeAlias = "tuple[Tensor, Tensor]"  # cosines and sines, each [P, D / 2]
# Attention of q [B, K, P, D] to all of k, v [B, K, S, D], giving q's shape: a host's own, in place of torch's.
Attend: TypeAlias = "Callable[[Tensor, Tensor, Tensor], Tensor]"

SCORES = 2**26  # of queries and keys, at a time, where they are held in memory: 256 MiB in float32


def weight_and_bias(module: nn.Module, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of one of the `ops` layers in the dtype and on the device of `like`.

    A host whose layers keep weights elsewhere (offloaded, fp8, with patches) gives its layers a method of this name.
    """
    own = getattr(module, "weight_and_bias", None)
    if own is not None:
        return own(like)
    bias = getattr(module, "bias", None)  # an Embedding has none at all
    return module.weight.to(like), None if bias is None else bias.to(like)


class ComputeDtype:
    """Mixin: `dtype` is what the network computes in: `compute_dtype` where set, else the dtype of its weights.

    Set it where the weights are stored in another dtype than they are used in (fp8; float16 with `CastOps`).
    """

    compute_dtype: torch.dtype | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.compute_dtype or next(self.parameters()).dtype


class Layers(nn.ModuleList):
    """The layers of a transformer, used one after the other.

    visit: set by a placement that keeps them elsewhere (see acestep_core.streaming): brings each for its turn.
    """

    visit: Callable[[Layers], Iterable[nn.Module]] | None = None

    def in_turn(self) -> Iterable[nn.Module]:
        """Each layer, ready to run until the next is asked for."""
        return self if self.visit is None else self.visit(self)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, the mean of squares in float32."""

    def __init__(self, size: int, eps: float, device=None, dtype=None):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x), self.eps)

    def modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """forward(x) * (1 + scale) + shift, with the weight folded into the scale. Shift, scale: [B, 1, size]."""
        factor = self.weight.to(scale) * (1 + scale)
        return torch.addcmul(shift.to(x), F.rms_norm(x, x.shape[-1:], None, self.eps), factor.to(x))


def rotary_tables(length: int, width: int, theta: float, like: Tensor) -> Rotary:
    """Cosines and sines for positions 0..length-1, each [length, width / 2], computed in float32, then cast."""
    exponents = torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width
    positions = torch.arange(length, device=like.device, dtype=torch.float32)
    angles = torch.outer(positions, theta**-exponents)
    return angles.cos().to(like), angles.sin().to(like)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotary positions, half-split layout: (x1 cos - x2 sin, x2 cos + x1 sin). x: [..., P, D]."""
    cos, sin = rotary
    half = x.shape[-1] // 2
    out = x * torch.cat((cos, cos), dim=-1)
    out[..., :half].addcmul_(x[..., half:], sin, value=-1)
    out[..., half:].addcmul_(x[..., :half], sin)
    return out


@dataclass(frozen=True)
class Band:
    """How a windowed layer cuts its positions: a first block, `blocks` equal blocks, and the rest.

    A block of `window` queries sees its own keys and `window` more on each side; the first block has none on its left
    and the rest none on its right, so each is a slice of the same small mask and nothing needs padding.
    Masks are additive, in the compute dtype, with one copy of the rows per query group.
    """

    window: int
    blocks: int
    first: Tensor
    middle: Tensor
    last: Tensor


def make_band(length: int, window: int, groups: int, like: Tensor) -> Band | None:
    """The cut for `length` positions, or None when every position sees every other."""
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


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, by: Attend | None = None) -> Tensor:
    """Attention of q [B, K, G, P, D] to k, v [B, K, S, D]; returns q's shape. `by`: where nothing is masked.

    The query groups are folded into the query length, so keys and values are never repeated and every backend of
    scaled_dot_product_attention qualifies. `mask` broadcasts to [B, K, G * P, S].
    """
    if by is not None and mask is None:
        return by(q.flatten(2, 3), k, v).view(q.shape)
    attention = _attention_in_parts if holds_scores(q.device) else F.scaled_dot_product_attention
    return attention(q.flatten(2, 3), k, v, attn_mask=mask).view(q.shape)


def holds_scores(device: torch.device) -> bool:
    """Whether torch's attention may hold what every query sees of every key: Metal's does, and that of those cards of
    AMD's and Intel's for which torch has no better one."""
    return device.type in ("mps", "xpu") or (device.type == "cuda" and torch.version.hip is not None)


def _attention_in_parts(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None) -> Tensor:
    """Attention of q [B, K, P, D], so many queries at a time that what all of them see of the keys stays small.

    More than 4 GiB of it at once end a process on Metal without an error (pytorch#149261), and are more than a card of
    Intel's gives.
    """
    rows = max(1, SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
    parts = q.split(rows, dim=2)
    shared = attn_mask is None or attn_mask.shape[-2] == 1
    masks = [attn_mask] * len(parts) if shared else attn_mask.split(rows, dim=-2)
    each = zip(parts, masks, strict=True)
    return torch.cat([F.scaled_dot_product_attention(part, k, v, attn_mask=mask) for part, mask in each], dim=2)


def attend_banded(q: Tensor, k: Tensor, v: Tensor, band: Band) -> Tensor:
    """`attend` restricted to |i - j| <= window, exact, in time and memory linear in length times window."""
    w = band.window
    parts = [attend(q[..., :w, :], k[..., : 2 * w, :], v[..., : 2 * w, :], band.first)]
    if band.blocks:
        parts.append(_attend_blocks(q, k, v, band))
    rest = w * (band.blocks + 1)
    parts.append(attend(q[..., rest:, :], k[..., rest - w :, :], v[..., rest - w :, :], band.last))
    return torch.cat(parts, dim=-2)


def _attend_blocks(q: Tensor, k: Tensor, v: Tensor, band: Band) -> Tensor:
    """The equal blocks at once: their axis stands where `attend` has key heads. Keys are overlapping views."""
    w, n = band.window, band.blocks
    batch, heads = k.shape[:2]
    blocks = q[..., w : w * (n + 1), :].unflatten(3, (n, w)).transpose(2, 3).flatten(0, 1)
    keys, values = (x[..., : w * (n + 2), :].unfold(2, 3 * w, w).transpose(-1, -2).flatten(0, 1) for x in (k, v))
    out = attend(blocks, keys, values, band.middle)
    return out.unflatten(0, (batch, heads)).transpose(2, 3).flatten(3, 4)


class Attention(nn.Module):
    """Grouped-query attention, bias-free, RMSNorm on queries and keys per head."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int, eps: float, ops: Ops, device, dtype):
        super().__init__()
        self.kv_heads = kv_heads
        self.groups = heads // kv_heads
        self.head_dim = head_dim
        made = {"bias": False, "device": device, "dtype": dtype}
        self.q_proj = ops.Linear(width, heads * head_dim, **made)
        self.k_proj = ops.Linear(width, kv_heads * head_dim, **made)
        self.v_proj = ops.Linear(width, kv_heads * head_dim, **made)
        self.o_proj = ops.Linear(heads * head_dim, width, **made)
        self.q_norm = RMSNorm(head_dim, eps, device, dtype)
        self.k_norm = RMSNorm(head_dim, eps, device, dtype)

    def forward(self, x: Tensor, rotary: Rotary, band: Band | None, by: Attend | None = None) -> Tensor:
        """Self-attention, [B, P, width]. Everything is visible where `band` is None."""
        q = rotate(self.queries(x), rotary)
        k, v = self.keys_values(x)
        k = rotate(k, rotary)
        return self.merge(attend(q, k, v, by=by) if band is None else attend_banded(q, k, v, band))

    def cross(self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, by: Attend | None = None) -> Tensor:
        """Attention of x [B, P, width] to keys and values from `keys_values`, without positions."""
        return self.merge(attend(self.queries(x), k, v, mask, by))

    def queries(self, x: Tensor) -> Tensor:
        """[B, K, G, P, D]"""
        q = self.q_norm(self.q_proj(x).unflatten(-1, (self.kv_heads, self.groups, self.head_dim)))
        return q.permute(0, 2, 3, 1, 4)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two of [B, K, S, D], keys normalised."""
        k, v = (p(x).unflatten(-1, (self.kv_heads, self.head_dim)) for p in (self.k_proj, self.v_proj))
        return self.k_norm(k).transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous()

    def merge(self, out: Tensor) -> Tensor:
        """Output projection of [B, K, G, P, D]."""
        return self.o_proj(out.permute(0, 3, 1, 2, 4).flatten(2))

    def constant(self, x: Tensor) -> Tensor:
        """What any query gets from keys that are all equal, one row x [1, 1, width] repeated: its value, projected."""
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, 1, self.head_dim))
        return self.o_proj(v.expand(-1, -1, -1, self.groups, -1).flatten(2))


class Mlp(nn.Module):
    """SwiGLU, bias-free."""

    def __init__(self, width: int, inner: int, ops: Ops, device, dtype):
        super().__init__()
        made = {"bias": False, "device": device, "dtype": dtype}
        self.gate_proj = ops.Linear(width, inner, **made)
        self.up_proj = ops.Linear(width, inner, **made)
        self.down_proj = ops.Linear(inner, width, **made)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x), inplace=True).mul_(self.up_proj(x)))


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, config: ModelConfig, ops: Ops, device, dtype):
        super().__init__()
        width, eps = config.encoder_hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(width, eps, device, dtype)
        self.self_attn = Attention(
            width,
            config.encoder_num_attention_heads,
            config.encoder_num_key_value_heads,
            config.head_dim,
            eps,
            ops,
            device,
            dtype,
        )
        self.post_attention_layernorm = RMSNorm(width, eps, device, dtype)
        self.mlp = Mlp(width, config.encoder_intermediate_size, ops, device, dtype)

    def forward(self, x: Tensor, rotary: Rotary, band: Band | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, band)
        return x + self.mlp(self.post_attention_layernorm(x))


class Encoder(nn.Module):
    """The transformer inside the lyric and timbre encoders, the audio tokenizer and the detokenizer.

    A projection into the encoder width, layers (even ones windowed), a final norm. Rows are never padding.
    """

    def __init__(self, in_size: int, depth: int, config: ModelConfig, ops: Ops, device, dtype):
        super().__init__()
        self.config = config
        width = config.encoder_hidden_size
        self.embed_tokens = ops.Linear(in_size, width, device=device, dtype=dtype)
        self.layers = Layers(EncoderLayer(config, ops, device, dtype) for _ in range(depth))
        self.norm = RMSNorm(width, config.rms_norm_eps, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[B, P, in_size] to [B, P, width]."""
        return self.transform(self.embed_tokens(x))

    def transform(self, x: Tensor) -> Tensor:
        """Layers and norm over embedded rows [B, P, width]."""
        config, length = self.config, x.shape[1]
        groups = config.encoder_num_attention_heads // config.encoder_num_key_value_heads
        rotary = rotary_tables(length, config.head_dim, config.rope_theta, x)
        band = make_band(length, config.sliding_window, groups, x)
        for index, layer in enumerate(self.layers.in_turn()):
            x = layer(x, rotary, band if index % 2 == 0 else None)
        return self.norm(x)
