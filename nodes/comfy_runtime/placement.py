"""Where networks lie, and who brings them to their device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import comfy.model_management as mm
import comfy.model_patcher
import torch


@dataclass(frozen=True)
class Homes:
    """Where networks lie while they are not in use."""

    network: torch.device
    text_encoder: torch.device
    vae: torch.device


def homes() -> Homes:
    return Homes(mm.unet_offload_device(), mm.text_encoder_offload_device(), mm.vae_offload_device())


def intermediate_device() -> torch.device:
    """Where results wait for the next node."""
    return mm.intermediate_device()


class Container(torch.nn.Module):
    """ModelPatcher notes things on the module that it moves, such as its device, which not every network allows."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network


@dataclass(frozen=True)
class ComfyPlacement:
    """The core's `Placement`: ComfyUI brings the network to its device, patched, with `memory` bytes of room beside it.

    `whole`: the network has layers that cannot be cast while in use, so it is loaded completely or not at all.
    """

    patcher: comfy.model_patcher.ModelPatcher
    memory: int = 0
    whole: bool = False

    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        mm.load_models_gpu([self.patcher], memory_required=self.memory, force_full_load=self.whole)
        self.patcher.pre_run()
        try:
            yield self.patcher.load_device
        finally:
            self.patcher.cleanup()
