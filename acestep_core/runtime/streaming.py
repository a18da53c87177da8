"""Networks whose layers visit the device one after the other, for devices that cannot hold them all."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..models.layers import LayerStack
from .placement import Offload, tensors_of, visiting

log = logging.getLogger("acestep")


@dataclass(frozen=True)
class Stream(Offload):
    """Networks visit the device for their stage, and of the layers of a transformer two at a time: the one that
    computes, and the next, which is copied meanwhile where the device can do both (CUDA).

    Networks without `LayerStack` visit as a whole. On CUDA the layers stay in page-locked memory from their first use on.
    """

    @contextmanager
    def use(self, module: nn.Module) -> Iterator[torch.device]:
        stacks = [part for part in module.modules() if isinstance(part, LayerStack)]
        waiting = [tensor for stack in stacks for tensor in tensors_of(stack)]
        if self.device.type == "cuda":
            _lock_pages(waiting)
        try:
            for stack in stacks:
                stack.stream = partial(visits, device=self.device)
            with visiting(tensors_of(module), self.device, but=waiting):
                yield self.device
        finally:
            for stack in stacks:
                stack.stream = None


def visits(layers: Sequence[nn.Module], device: torch.device) -> Iterator[nn.Module]:
    """Each layer, with its tensors on `device` until the next is asked for. Two of them are there at any time."""
    courier = _Courier(device)
    coming = courier.send(layers[0]) if len(layers) else None
    try:
        for index, layer in enumerate(layers):
            here = coming
            courier.receive()
            if index + 1 < len(layers):
                coming = courier.send(layers[index + 1])
            tensors = tensors_of(layer)
            homes = [tensor.data for tensor in tensors]
            for tensor, visitor in zip(tensors, here, strict=True):
                tensor.data = visitor
            try:
                yield layer
            finally:
                for tensor, home in zip(tensors, homes, strict=True):
                    tensor.data = home
    finally:
        courier.receive()  # nothing may still be written when the memory becomes somebody else's


class _Courier:
    """Copies layers to a device, in turn into one of two rooms that all of them use."""

    def __init__(self, device: torch.device):
        self.device = device
        self.lane = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.rooms: list[list[Tensor]] = [[], []]

    def send(self, layer: nn.Module) -> list[Tensor]:
        """Where the layer's tensors will be once `receive` has been called. Who was in that room must have left."""
        homes = [tensor.data for tensor in tensors_of(layer)]
        self.rooms = self.rooms[::-1]
        if not _fits(self.rooms[0], homes):
            self.rooms[0] = []  # frees it before the new one is made
            with torch.inference_mode(False):
                self.rooms[0] = [torch.empty_like(home, device=self.device) for home in homes]
        if self.lane is None:
            _copy(homes, self.rooms[0])
        else:
            # All that was asked of the device so far, the room's last user too, comes first; what is asked from now
            # on, the layer in the other room, runs meanwhile.
            self.lane.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.lane):
                _copy(homes, self.rooms[0])
        return self.rooms[0]

    def receive(self) -> None:
        """What is computed from now on finds the tensors sent so far."""
        if self.lane is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.lane)


def _fits(room: Sequence[Tensor], homes: Sequence[Tensor]) -> bool:
    return [(x.shape, x.dtype) for x in room] == [(x.shape, x.dtype) for x in homes]


def _copy(homes: Sequence[Tensor], room: Sequence[Tensor]) -> None:
    for home, visitor in zip(homes, room, strict=True):
        visitor.copy_(home, non_blocking=True)


def _lock_pages(tensors: Sequence[Tensor]) -> None:
    """Without it a copy holds up the computation. Done once: the tensors then live in that memory."""
    try:
        with torch.inference_mode(False):
            for tensor in tensors:
                if not tensor.is_pinned():
                    tensor.data = tensor.data.pin_memory()
    except RuntimeError as error:
        log.warning("not all layers fit into page-locked memory, they are copied more slowly: %s", error)
