"""Begins a training where a finished checkpoint stands: `--start acestep_core/nano`.

Training states are large and stay where they were made; what is shipped is enough to go on from, on any machine.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

from acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from acestep_core.planner.load_planner import load_planner

from .export import NETWORK_FOLDER, PLANNER_FOLDER, TEXT_FOLDER

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


def take_tokenizer(checkpoint: Path, folder: Path) -> None:
    """The checkpoint's tokenizer into the training's own folder, where there is none yet."""
    if (folder / "tokenizer.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(Path(checkpoint) / TEXT_FOLDER / name, folder / name)


def take_vae(vae: nn.Module, folder: Path) -> None:
    """Weights of the autoencoder in `folder`, which are plain ones: before weight norm is put on."""
    _take(vae, load_vae(folder, device="cpu", dtype=torch.float32)[0])


def take_networks(networks: nn.Module, checkpoint: Path) -> None:
    """Diffusion model, audio tokenizer and text encoder (`training.dit.Networks`)."""
    made = {"device": "cpu", "dtype": torch.float32}
    _take(networks.model, load_network(Path(checkpoint) / NETWORK_FOLDER, **made)[0])
    _take(networks.tower.qwen, load_text_encoder(Path(checkpoint) / TEXT_FOLDER, **made)[0].module)


def take_planner(network: nn.Module, checkpoint: Path) -> None:
    """`network`: transformers' Qwen3, without its head."""
    _take(network, load_planner(Path(checkpoint) / PLANNER_FOLDER, device="cpu", dtype="float32").network)


def _take(mine: nn.Module, theirs: nn.Module) -> None:
    missing = mine.load_state_dict(theirs.state_dict(), strict=False)
    if missing.missing_keys or missing.unexpected_keys:
        names = ", ".join([*missing.missing_keys, *missing.unexpected_keys][:3])
        raise ValueError(f"that checkpoint is of another shape than the one to be trained: {names}")
