"""ComfyUI's own ACE-Step 1.5 as a peer: its networks and its choice of attention, from the folder in $COMFYUI_PATH.

A ComfyUI that has none (before 0.11.1) is left out of the tables.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from acestep_core.config import ModelConfig, VAEConfig

NAME = "ComfyUI"
FRAMES_A_CODE = 5


def folder() -> Path | None:
    named = os.environ.get("COMFYUI_PATH")
    return Path(named) if named and (Path(named) / "comfy/ldm/ace/ace_step15.py").is_file() else None


def _module(name: str, device: torch.device) -> object:
    """A module of ComfyUI, which is told on its first import whether it is on a CPU."""
    if str(folder()) not in sys.path:
        sys.path.append(str(folder()))
        importlib.import_module("comfy.cli_args").args.cpu = device.type == "cpu"
    return importlib.import_module(name)


def network(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """All of it but the text encoder. Weights are unset."""
    ace, ops = (_module(f"comfy.{name}", device) for name in ("ldm.ace.ace_step15", "ops"))
    return ace.AceStepConditionGenerationModel(
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
    )


def autoencoder(config: VAEConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
    vae = _module("comfy.ldm.audio.autoencoder", device).AudioOobleckVAE(
        channels=config.decoder_channels,
        c_mults=list(config.channel_multiples),
        strides=list(config.downsampling_ratios),
    )
    return vae.to(device, dtype)


def velocity(network: nn.Module, x: Tensor, t: Tensor, text: Tensor, lyrics: Tensor, timbre: Tensor) -> Tensor:
    """What one step of its sampler asks for, [B, frames, 64]: it takes the condition anew from step to step."""
    codes = torch.zeros(1, -(-x.shape[1] // FRAMES_A_CODE), dtype=torch.long, device=x.device)
    return network(x.mT, t, text, lyric_embed=lyrics, refer_audio=timbre.mT, audio_codes=codes).mT
