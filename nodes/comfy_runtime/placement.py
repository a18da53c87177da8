"""Storage devices, and the core's `Placement` by ComfyUI's model management."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher


@dataclass(frozen=True)
class StorageDevices:
    """The devices of unused networks."""

    network: torch.device
    text_encoder: torch.device
    vae: torch.device


def storage_devices() -> StorageDevices:
    return StorageDevices(mm.unet_offload_device(), mm.text_encoder_offload_device(), mm.vae_offload_device())


def intermediate_device() -> torch.device:
    """Return the device of the tensors that nodes pass on."""
    return mm.intermediate_device()


class Container(torch.nn.Module):
    """A module that holds the network. ModelPatcher sets attributes on its model, which some networks refuse."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network


def set_factory(patcher: ModelPatcher, build: Callable[..., ModelPatcher], *arguments: object) -> None:
    """Let ComfyUI build the model of `patcher` again, for training, other devices and further GPUs.

    build: returns another patcher for `arguments` and the keyword `disable_dynamic`.
    """
    patcher.cached_patcher_init = build, arguments


@dataclass(frozen=True)
class ComfyPlacement:
    """The core's `Placement`: ComfyUI loads and patches the network, with `memory` free bytes for the work.

    `whole`: load the network completely, because some of its layers cannot be cast while in use.
    """

    patcher: ModelPatcher
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
