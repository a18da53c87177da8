"""Start training from a checkpoint: `--start acestep_core/nano`.

Training states are large and not shipped. The checkpoint is enough to continue on any machine.
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


def copy_tokenizer(checkpoint: Path, folder: Path) -> None:
    """Copy the checkpoint's tokenizer into a training folder that has none."""
    if (folder / "tokenizer.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(Path(checkpoint) / TEXT_FOLDER / name, folder / name)


def load_vae_into(vae: nn.Module, folder: Path) -> None:
    """Load the autoencoder in `folder` into `vae`, which must not have weight norm yet."""
    _load(vae, load_vae(folder, device="cpu", dtype=torch.float32)[0])


def load_networks_into(networks: nn.Module, checkpoint: Path) -> None:
    """Load diffusion model, audio tokenizer and text encoder into a `training.dit.Networks`."""
    target = {"device": "cpu", "dtype": torch.float32}
    _load(networks.model, load_network(Path(checkpoint) / NETWORK_FOLDER, **target)[0])
    _load(networks.tower.qwen, load_text_encoder(Path(checkpoint) / TEXT_FOLDER, **target)[0].module)


def load_planner_into(network: nn.Module, checkpoint: Path) -> None:
    """Load the planner into transformers' Qwen3 without its head. Raises ValueError if their tensors differ."""
    _load(network, load_planner(Path(checkpoint) / PLANNER_FOLDER, device="cpu", dtype="float32").network)


def _load(module: nn.Module, source: nn.Module) -> None:
    missing = module.load_state_dict(source.state_dict(), strict=False)
    if missing.missing_keys or missing.unexpected_keys:
        names = ", ".join([*missing.missing_keys, *missing.unexpected_keys][:3])
        raise ValueError(f"start: the checkpoint has other tensors than the network to train ({names})")
