"""Write nano as single files: one per part, as ComfyUI users have ACE-Step, and an all-in-one file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from acestep_core.checkpoints.catalog import NANO

from .layouts import State, prefixed, save

QWEN_ROWS = 151_669  # single files have no vocabulary and are read with Qwen's
PARTS = {
    "diffusion_models": ("acestep-v15-nano", "model.diffusion_model."),
    "text_encoders": ("Qwen3-Embedding-0.6B", "text_encoders.qwen3_06b.transformer.model."),
    "vae": ("vae", "vae."),
}


def file_name(category: str) -> str:
    return f"acestep_v1.5_turbo_{category}.safetensors"


def state_of(folder: Path) -> State:
    """Return the weights of a folder, in one file or in shards."""
    return {name: value for part in sorted(folder.glob("*.safetensors")) for name, value in load_file(part).items()}


def write_single_files(models: Path, **folders: str) -> None:
    """Write a file into the folder of each category below `models`, and one into `checkpoints`.

    folders: other folder names, by category.
    """
    whole: State = {}
    for category, (part, prefix) in PARTS.items():
        state = state_of(NANO / part)
        if "embed_tokens.weight" in state:
            words = state["embed_tokens.weight"]
            state["embed_tokens.weight"] = words[torch.arange(QWEN_ROWS) % len(words)]
        save(models / folders.get(category, category) / file_name(category), state)
        whole |= prefixed(prefix, state)
    save(models / folders.get("checkpoints", "checkpoints") / file_name("checkpoints"), whole)
