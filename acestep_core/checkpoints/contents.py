"""Recognise what a safetensors file holds by the names of its tensors."""

from __future__ import annotations

from collections.abc import Iterable

from ..config import PLANNER_VOCAB_SIZE
from .diffusers_keys import DIFFUSERS_MARKERS
from .reader import TensorIndex

# Prefixes that files put before the names, and a tensor that is always there.
NETWORK_PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "model.")
NETWORK_MARKER = "encoder.lyric_encoder.layers.0.input_layernorm.weight"
VAE_PREFIXES = ("", "vae.", "first_stage_model.")
VAE_MARKERS = ("decoder.block.0.snake1.alpha", "decoder.layers.1.layers.0.alpha")
TEXT_PREFIXES = ("", "model.", "text_encoders.qwen3_06b.transformer.model.", "qwen3_06b.transformer.model.")
PLANNER_PREFIXES = tuple(
    f"{outer}qwen3_{size}.transformer.model." for outer in ("text_encoders.", "") for size in ("2b", "4b")
)
QWEN3_MARKER = "layers.0.post_attention_layernorm.weight"


def network_prefix(index: TensorIndex) -> str | None:
    """Return the prefix of the diffusion model's tensor names, or None if the index has no diffusion model."""
    return _prefix(index, NETWORK_PREFIXES, (NETWORK_MARKER,))


def vae_prefix(index: TensorIndex) -> str | None:
    """Return the prefix of an Oobleck VAE's tensor names, or None if the index has no such VAE."""
    return _prefix(index, VAE_PREFIXES, VAE_MARKERS)


def text_prefix(index: TensorIndex) -> str | None:
    """Return the prefix of a Qwen3 model's tensor names, or None if the index has no such model."""
    return _qwen3_prefix(index, TEXT_PREFIXES)


def planner_prefix(index: TensorIndex) -> str | None:
    """Return the prefix of a planner's tensor names, or of a Qwen3 model that is alone in the index; else None."""
    return _qwen3_prefix(index, (*PLANNER_PREFIXES, "", "model."))


def _qwen3_prefix(index: TensorIndex, prefixes: Iterable[str]) -> str | None:
    if "special_tokens" in index.entries:  # the detokenizer of a diffusers folder has layers of the same names
        return None
    found = [prefix for prefix in prefixes if prefix + QWEN3_MARKER in index.entries]
    return next((prefix for prefix in found if prefix + "embed_tokens.weight" in index.entries), None)


def vocabulary_rows(index: TensorIndex, prefix: str) -> int:
    """Return the number of rows of a Qwen3 model's embedding."""
    shape = index.entries[prefix + "embed_tokens.weight"].shape
    return shape[0] if shape else 0


def _prefix(index: TensorIndex, prefixes: Iterable[str], markers: Iterable[str]) -> str | None:
    return next((prefix for prefix in prefixes for marker in markers if prefix + marker in index.entries), None)


def describe_contents(index: TensorIndex) -> str:
    """Describe the contents of a file, for the error that refuses the file."""
    names = index.entries.keys()
    if any(name.endswith("genre_embedder.weight") for name in names):
        return "an ACE-Step 1.0 checkpoint, a different model"
    if any(name.startswith("pretransform.model.") for name in names):
        return "a Stable Audio checkpoint, a different model"
    if any("vocoder." in name or "dcae." in name for name in names):
        return "the VAE of ACE-Step 1.0, a different model"
    if any(".lora_" in name or ".lokr_" in name or ".hada_" in name for name in names):
        return "a LoRA, not a whole model"
    part = next((part for part, marker in DIFFUSERS_MARKERS.items() if marker in names), None)
    if part:
        return f"only the {part} of a diffusers folder; give the whole folder"
    if network_prefix(index) is not None:
        return "an ACE-Step 1.5 diffusion model"
    if vae_prefix(index) is not None:
        return "a VAE"
    prefix = text_prefix(index)
    if prefix is not None:
        return "a planner LM" if vocabulary_rows(index, prefix) == PLANNER_VOCAB_SIZE else "a text encoder"
    if not names:
        return "a safetensors file without tensors"
    return f"an unknown model with tensors named {', '.join(sorted(names)[:3])}"
