"""Stream the layers of a network through a device that cannot hold them all."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models.layers import LayerStack
from .placement import Offload, on_device, tensors_of

log = logging.getLogger("acestep")


@dataclass(frozen=True)
class Stream(Offload):
    """Like Offload, but only two layers of a transformer are on the device at a time.

    One computes. The next is copied meanwhile if the device can do both (CUDA). Networks without a LayerStack are
    copied as a whole. On CUDA the layers are in page-locked memory from their first use on, for as long as they exist.
    """

    @contextmanager
    def use(self, module: nn.Module) -> Iterator[torch.device]:
        stacks = [part for part in module.modules() if isinstance(part, LayerStack)]
        streamed = [tensor for stack in stacks for tensor in tensors_of(stack)]
        if self.device.type == "cuda":
            _pin_layers([layer for stack in stacks for layer in stack])
        with ExitStack() as iterations:
            try:
                for stack in stacks:
                    stack.stream = iterations.enter_context(closing(_LatestIteration(self.device)))
                with on_device(tensors_of(module), self.device, exclude=streamed):
                    yield self.device
            finally:
                for stack in stacks:
                    stack.stream = None


class _LatestIteration:
    """Streams one stack and closes its latest iteration.

    An exception keeps the frames of an unfinished iteration alive, whose layer would still be on the device, and leave
    it when another run uses it.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._layers: Generator[nn.Module, None, None] | None = None

    def __call__(self, layers: LayerStack) -> Iterator[nn.Module]:
        self.close()
        self._layers = stream_layers(layers, self._device)
        return self._layers

    def close(self) -> None:
        if self._layers is not None:
            self._layers.close()


def stream_layers(layers: LayerStack, device: torch.device) -> Generator[nn.Module, None, None]:
    """Yield each layer with its tensors on `device` until the next one is requested. Two layers are there at a time."""
    if not layers:
        return
    copier = _LayerCopier(device)
    following = copier.send(layers[0])
    try:
        for index, layer in enumerate(layers):
            copies = following
            copier.receive()
            if index + 1 < len(layers):
                following = copier.send(layers[index + 1])
            tensors = tensors_of(layer)
            stored = [tensor.data for tensor in tensors]
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.data = copy
            try:
                yield layer
            finally:
                for tensor, data in zip(tensors, stored, strict=True):
                    tensor.data = data
    finally:
        copier.receive()  # no copy may still write when the memory is reused


class _LayerCopier:
    """Copies layers to a device, alternately into one of two buffers."""

    def __init__(self, device: torch.device):
        self.device = device
        self.copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.buffers: list[list[Tensor]] = [[], []]

    def send(self, layer: nn.Module) -> list[Tensor]:
        """Start copying a layer and return its buffer, which is valid after `receive`.

        The previous layer in this buffer must no longer be in use.
        """
        stored = [tensor.data for tensor in tensors_of(layer)]
        self.buffers = self.buffers[::-1]
        if not _fits(self.buffers[0], stored):
            self.buffers[0] = []  # frees its memory before the new one is allocated
            with torch.inference_mode(False):
                self.buffers[0] = [torch.empty_like(tensor, device=self.device) for tensor in stored]
        if self.copy_stream is None:
            _copy(stored, self.buffers[0])
        else:
            # The copy waits for everything queued so far, which includes the last use of the buffer. It runs while
            # the layer in the other buffer computes, which is queued afterwards.
            self.copy_stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.copy_stream):
                _copy(stored, self.buffers[0])
        return self.buffers[0]

    def receive(self) -> None:
        """Let the computation that follows wait for all copies."""
        if self.copy_stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.copy_stream)


def _fits(buffer: Sequence[Tensor], stored: Sequence[Tensor]) -> bool:
    return [(x.shape, x.dtype) for x in buffer] == [(x.shape, x.dtype) for x in stored]


def _copy(stored: Sequence[Tensor], buffer: Sequence[Tensor]) -> None:
    for source, target in zip(stored, buffer, strict=True):
        target.copy_(source, non_blocking=True)


def _pin_layers(layers: Sequence[nn.Module]) -> None:
    """Move each layer to a block of page-locked memory, without which a copy delays the computation.

    torch's own page-locked memory would take a power of two for each tensor, and never return it to the system.
    """
    driver = torch.cuda.cudart()
    for layer in layers:
        tensors = tensors_of(layer)
        if all(tensor.is_pinned() for tensor in tensors):
            continue
        unpin = layer.__dict__.get(_UNPIN)
        if unpin is not None:  # tensors have been replaced since
            unpin()
        block = _one_block(tensors)
        if int(driver.cudaHostRegister(block.data_ptr(), block.nbytes, 0)) != 0:
            log.warning("stream: page-locked memory does not hold all layers, some are copied more slowly")
            return
        unpin = weakref.finalize(layer, _unlock, driver, block)
        unpin.atexit = False  # the driver may be gone by then
        layer.__dict__[_UNPIN] = unpin


_UNPIN = "_unpin"  # attribute of a layer in page-locked memory: unlocks it, at the latest when the layer is deleted
_ALIGNMENT = 256  # bytes


def _one_block(tensors: Sequence[Tensor]) -> Tensor:
    """Move tensors to one new block of host memory, and return it as bytes."""
    sizes = [-(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT for tensor in tensors]
    with torch.inference_mode(False):
        block = torch.empty(sum(sizes), dtype=torch.uint8)
        for tensor, part in zip(tensors, block.split(sizes), strict=True):
            moved = part[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            tensor.data = moved.copy_(tensor.data)
    return block


def _unlock(driver: Any, block: Tensor) -> None:
    driver.cudaHostUnregister(block.data_ptr())
