"""Tells apart what a file of tensors holds, by the names of its tensors."""

from __future__ import annotations

from collections.abc import Iterable

from ..config import PLANNER_VOCAB_SIZE
from . import keymaps
from .reader import Table


def network_prefix(table: Table) -> str | None:
    """What stands before the names of the diffusion model; None when there is none in the table."""
    return _prefix(table, keymaps.NETWORK_PREFIXES, (keymaps.NETWORK_MARKER,))


def vae_prefix(table: Table) -> str | None:
    """What stands before the names of an Oobleck VAE; None when there is none in the table."""
    return _prefix(table, keymaps.VAE_PREFIXES, keymaps.VAE_MARKERS)


def text_prefix(table: Table) -> str | None:
    """What stands before the names of a Qwen3 model; None when there is none in the table."""
    return _qwen3_prefix(table, keymaps.TEXT_PREFIXES)


def planner_prefix(table: Table) -> str | None:
    """What stands before the names of a planner LM, or of a Qwen3 model that is alone in the table; else None."""
    return _qwen3_prefix(table, (*keymaps.PLANNER_PREFIXES, "", "model."))


def _qwen3_prefix(table: Table, prefixes: Iterable[str]) -> str | None:
    if "special_tokens" in table.entries:  # the detokenizer of a diffusers folder has layers of the same names
        return None
    found = [prefix for prefix in prefixes if prefix + keymaps.TEXT_MARKER in table.entries]
    return next((prefix for prefix in found if prefix + "embed_tokens.weight" in table.entries), None)


def _prefix(table: Table, prefixes: Iterable[str], markers: Iterable[str]) -> str | None:
    return next((prefix for prefix in prefixes for marker in markers if prefix + marker in table.entries), None)


def describe(table: Table) -> str:
    """What a file is, for the sentence that refuses it."""
    names = table.entries.keys()
    if any(name.endswith("genre_embedder.weight") for name in names):
        return "an ACE-Step 1.0 checkpoint, a different model"
    if any(name.startswith("pretransform.model.") for name in names):
        return "a Stable Audio checkpoint, a different model"
    if any("vocoder." in name or "dcae." in name for name in names):
        return "the VAE of ACE-Step 1.0, a different model"
    if any(".lora_" in name or ".lokr_" in name or ".hada_" in name for name in names):
        return "a LoRA, not a model of its own"
    part = next((part for part, marker in keymaps.DIFFUSERS_MARKERS.items() if marker in names), None)
    if part:
        return f"only the {part} of a diffusers folder (give the folder)"
    if network_prefix(table) is not None:
        return "an ACE-Step 1.5 diffusion model"
    if vae_prefix(table) is not None:
        return "a VAE"
    prefix = text_prefix(table)
    if prefix is not None:
        rows = table.entries[prefix + "embed_tokens.weight"].shape[0]
        return "a planner LM" if rows == PLANNER_VOCAB_SIZE else "a text encoder"
    if not names:
        return "a safetensors file without tensors"
    return f"something else: its tensors are named {', '.join(sorted(names)[:3])}"
