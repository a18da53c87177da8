"""Tensor names of the Oobleck VAE in stable-audio-tools, which ComfyUI's files use as well."""

from __future__ import annotations

import re

import torch

from ..models.oobleck import OobleckVAE

_RESIDUAL_UNIT = ("snake1", "conv1", "snake2", "conv2")  # layers.0 … layers.3 of a residual unit
_ENCODER_BLOCK = ("res_unit1", "res_unit2", "res_unit3", "snake1", "conv1")
_DECODER_BLOCK = ("snake1", "conv_t1", "res_unit1", "res_unit2", "res_unit3")
_NAME = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(?:layers\.(\d+)\.)?(?:layers\.(\d+)\.)?(.+)")


def from_stable_audio(name: str, blocks: int) -> str:
    """Return the original name of a VAE tensor. Original names pass through unchanged.

    blocks: number of blocks in each half of the VAE (5 in the released one).
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return name
    half, outer, inner, unit, leaf = match.groups()
    parts = [half]
    if int(outer) in (0, blocks + 1, blocks + 2):
        parts.append({0: "conv1", blocks + 1: "snake1", blocks + 2: "conv2"}[int(outer)])
    else:
        parts += ["block", str(int(outer) - 1)]
    block = _ENCODER_BLOCK if half == "encoder" else _DECODER_BLOCK
    for index, names in ((inner, block), (unit, _RESIDUAL_UNIT)):
        if index is not None:
            if int(index) >= len(names):
                return name
            parts.append(names[int(index)])
    return ".".join([*parts, leaf])


def to_stable_audio(name: str, blocks: int) -> str:
    """Return the stable-audio-tools name of an original VAE tensor name."""
    half, *parts = name.split(".")
    block = _ENCODER_BLOCK if half == "encoder" else _DECODER_BLOCK
    if parts[0] == "block":
        indices, parts = [int(parts[1]) + 1, block.index(parts[2])], parts[3:]
        if parts[0] in _RESIDUAL_UNIT:
            indices, parts = [*indices, _RESIDUAL_UNIT.index(parts[0])], parts[1:]
    else:
        indices, parts = [{"conv1": 0, "snake1": blocks + 1, "conv2": blocks + 2}[parts[0]]], parts[1:]
    return ".".join([half, *(f"layers.{index}" for index in indices), *parts])


@torch.no_grad()
def stable_audio_state(vae: OobleckVAE) -> dict[str, torch.Tensor]:
    """Return the VAE's tensors as stable-audio-tools and ComfyUI name and shape them, weight norm included."""
    state: dict[str, torch.Tensor] = {}
    for name, tensor in vae.state_dict().items():
        name = to_stable_audio(name, len(vae.config.downsampling_ratios))
        if name.endswith(".weight"):
            state[f"{name}_g"] = torch.linalg.vector_norm(tensor.float(), dim=(1, 2), keepdim=True).to(tensor)
            state[f"{name}_v"] = tensor
        else:
            state[name] = tensor.flatten()
    return state
