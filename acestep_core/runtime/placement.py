"""Placements of networks: resident on a device, or offloaded to host memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch


class Placement(Protocol):
    """Brings a network to its device for the time it is needed."""

    def use(self, module: torch.nn.Module) -> AbstractContextManager[torch.device]:
        """Make `module` ready to run on the returned device. On exit it may be moved away again."""
        ...


@dataclass(frozen=True)
class Resident:
    """Keeps every network on the device."""

    device: torch.device

    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        with torch.inference_mode(False):  # otherwise a moved parameter could never be trained or patched again
            module.to(self.device)
        yield self.device


@dataclass(frozen=True)
class Offload:
    """Stores networks in host memory and copies each to the device while it is in use.

    The tensors also stay in host memory, so that nothing has to be copied back.
    """

    device: torch.device

    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        with on_device(tensors_of(module), self.device):
            yield self.device


def tensors_of(module: torch.nn.Module) -> list[torch.Tensor]:
    """Return all parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


@contextmanager
def on_device(
    tensors: Sequence[torch.Tensor], device: torch.device, exclude: Sequence[torch.Tensor] = ()
) -> Iterator[None]:
    """Let `tensors` be copies on `device` within the block, except those of `exclude`."""
    stored, excluded = [tensor.data for tensor in tensors], {id(tensor) for tensor in exclude}
    try:
        with torch.inference_mode(False):
            for tensor in tensors:
                if id(tensor) not in excluded:
                    tensor.data = _copy_to(tensor.data, device)
        yield
    finally:
        for tensor, data in zip(tensors, stored, strict=True):
            tensor.data = data
        _release_memory(device)


def _copy_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.to(device)


def _release_memory(device: torch.device) -> None:
    """Return freed blocks to the driver, for other programs on the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()
