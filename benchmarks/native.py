"""ComfyUI's own ACE-Step 1.5 networks as a peer, from the folder in $COMFYUI_PATH (ComfyUI 0.11.1 or later)."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from acestep_core.config import ModelConfig, VAEConfig

NAME = "ComfyUI"


def folder() -> Path | None:
    """Return ComfyUI's folder, or None if it has no ACE-Step 1.5."""
    path = os.environ.get("COMFYUI_PATH")
    return Path(path).resolve() if path and (Path(path) / "comfy/ldm/ace/ace_step15.py").is_file() else None


def is_available(config: ModelConfig) -> bool:
    """Return True if there is a ComfyUI that supports this size. 0.11.1 has no XL."""
    return folder() is not None and not config.is_xl


def _module(name: str, device: torch.device) -> ModuleType:
    """Import a module of ComfyUI, which looks for a GPU during its first import."""
    if str(folder()) not in sys.path:
        sys.path.insert(0, str(folder()))
    importlib.import_module("comfy.cli_args").args.cpu = device.type == "cpu"
    return importlib.import_module(name)


def build_network(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Build diffusion transformer (`decoder`) and condition encoder (`encoder`) with unset weights."""
    ace, ops = (_module(f"comfy.{name}", device) for name in ("ldm.ace.ace_step15", "ops"))
    model = ace.AceStepConditionGenerationModel
    encoder_sizes = {
        "encoder_hidden_size": config.encoder_hidden_size,
        "encoder_intermediate_size": config.encoder_intermediate_size,
        "encoder_num_heads": config.encoder_num_attention_heads,
    }
    parameters = inspect.signature(model).parameters  # older versions use the transformer's sizes for both
    return model(
        hidden_size=config.hidden_size,
        text_hidden_dim=config.text_hidden_dim,
        num_dit_layers=config.num_hidden_layers,
        num_lyric_layers=config.num_lyric_encoder_hidden_layers,
        num_timbre_layers=config.num_timbre_encoder_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        intermediate_size=config.intermediate_size,
        fsq_dim=config.hidden_size,
        dtype=dtype,
        device=device,
        operations=ops.disable_weight_init,
        **{name: value for name, value in encoder_sizes.items() if name in parameters},
    )


def build_autoencoder(config: VAEConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
    vae = _module("comfy.ldm.audio.autoencoder", device).AudioOobleckVAE(
        channels=config.decoder_channels,
        latent_dim=config.decoder_input_channels,
        c_mults=list(config.channel_multiples),
        strides=list(config.downsampling_ratios),
    )
    return vae.to(device, dtype)


def condition(network: nn.Module, text: Tensor, lyrics: Tensor, timbre: Tensor) -> Tensor:
    """Encode text [1, L, t], lyrics [1, M, t] and timbre [1, F, 64] to rows [1, S, e]."""
    order = torch.zeros(1, dtype=torch.long, device=text.device)
    return network.encoder(text, None, lyrics, None, timbre, order)[0]


def velocity(network: nn.Module, x: Tensor, t: Tensor, condition: Tensor, context: Tensor) -> Tensor:
    """Return the velocity [B, frames, 64] of one step."""
    return network.decoder(x, t, t, None, condition, None, context)
