"""nano as files that stand alone: one for each part, as ComfyUI's users have ACE-Step, and all of them in one."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from acestep_core.checkpoints.catalog import NANO

from .layouts import State, prefixed, save

QWEN_ROWS = 151_669  # a single file brings no vocabulary and is read with Qwen's own
PARTS = {
    "diffusion_models": ("acestep-v15-nano", "model.diffusion_model."),
    "text_encoders": ("Qwen3-Embedding-0.6B", "text_encoders.qwen3_06b.transformer.model."),
    "vae": ("vae", "vae."),
}


def file_name(category: str) -> str:
    return f"acestep_v1.5_turbo_{category}.safetensors"


def state_of(folder: Path) -> State:
    """The weights in a folder, whether whole or in shards."""
    return {name: value for part in sorted(folder.glob("*.safetensors")) for name, value in load_file(part).items()}


def write_single_files(models: Path, **folders: str) -> None:
    """Below `models`: a file in the folder of each category, or in the one given for it, and one in `checkpoints`."""
    whole: State = {}
    for category, (part, prefix) in PARTS.items():
        state = state_of(NANO / part)
        if "embed_tokens.weight" in state:
            words = state["embed_tokens.weight"]
            state["embed_tokens.weight"] = words[torch.arange(QWEN_ROWS) % len(words)]
        save(models / folders.get(category, category) / file_name(category), state)
        whole |= prefixed(prefix, state)
    save(models / folders.get("checkpoints", "checkpoints") / file_name("checkpoints"), whole)
