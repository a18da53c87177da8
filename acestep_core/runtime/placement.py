"""Placements: bring a network to its device for the time it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch


class Placement(Protocol):
    """Who brings a network to its device for the time it is needed."""

    def use(self, module: torch.nn.Module) -> AbstractContextManager[torch.device]:
        """Enter: `module` is ready to run on the returned device. Leave: the owner may move it away again."""
        ...


@dataclass(frozen=True)
class Resident:
    """Every network stays on the device."""

    device: torch.device

    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        with torch.inference_mode(False):  # else a moved parameter could never be trained or patched again
            module.to(self.device)
        yield self.device


@dataclass(frozen=True)
class Offload:
    """Networks live in main memory and visit the device for the stage that needs them.

    The tensors in main memory are kept meanwhile, so that going back costs no copy.
    """

    device: torch.device

    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        with visiting(tensors_of(module), self.device):
            yield self.device


def tensors_of(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


@contextmanager
def visiting(tensors: Sequence[torch.Tensor], device: torch.device, but: Sequence[torch.Tensor] = ()) -> Iterator[None]:
    """`tensors` are on `device` inside, without those of `but`. All are back where they were afterwards."""
    homes, staying = [tensor.data for tensor in tensors], {id(tensor) for tensor in but}
    try:
        with torch.inference_mode(False):
            for tensor in tensors:
                if id(tensor) not in staying:
                    tensor.data = _copy_to(tensor.data, device)
        yield
    finally:
        for tensor, home in zip(tensors, homes, strict=True):
            tensor.data = home
        _release_memory(device)


def _copy_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.to(device)


def _release_memory(device: torch.device) -> None:
    """Gives freed blocks back to the driver, so that other programs on the device can have them."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()
