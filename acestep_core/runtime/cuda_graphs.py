"""Capture a function as a CUDA graph and replay it."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import nn


def can_capture(device: torch.device, *networks: nn.Module) -> bool:
    """True if steps of these networks can be captured: on an NVIDIA GPU that holds all of their weights.

    ROCm has graphs, too, but they gain little there and hang on some GPUs.
    """
    if device.type != "cuda" or torch.version.hip:
        return False
    tensors = (tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))
    return all(tensor.device.type == "cuda" for tensor in tensors)


def capture(
    step: Callable[[], None], device: torch.device, report: Callable[[str], None]
) -> torch.cuda.CUDAGraph | None:
    """Capture `step` without running it. If that fails, return None and pass a sentence to `report`.

    `step` must have run before, as its first run allocates and compiles. It keeps its state in tensors that it changes
    in place.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    with torch.cuda.device(device):  # outermost, because setting a stream also sets its device
        pool = torch.cuda.graph_pool_handle()
        try:
            # "thread_local": other threads of a host may allocate memory meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=_capture_stream(device), capture_error_mode="thread_local"):
                step()
        except RuntimeError as error:
            _close_pool(pool)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            report(f"CUDA graphs are not used: a step could not be captured ({reason})")
            return None
        finally:
            torch.cuda.set_stream(stream)  # after a failed capture torch stays on the other stream
    return graph


def _close_pool(pool: tuple[int, int]) -> None:
    """Close the pool that torch before 2.12 leaves open after a failed capture (pytorch/pytorch#180395).

    Otherwise its allocator would never free memory or capture again.
    """
    end = getattr(torch._C, "_cuda_endAllocateToPool", None)
    end = end or getattr(torch._C, "_cuda_endAllocateCurrentStreamToPool", None)  # its name before torch 2.8
    if end is None:
        return
    with suppress(RuntimeError):  # raised if the pool is closed already
        device = torch.cuda.current_device()
        end(device, pool)
        torch._C._cuda_releasePool(device, pool)


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for all captures on a device, as each stream has memory of its own."""
    return torch.cuda.Stream(device)


class Pace:
    """Keeps the host at most one step ahead of an accelerator, so that progress and cancelling are prompt.

    Call it after each step.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._events: deque[Any] = deque()

    def __call__(self) -> None:
        if self._device.type == "mps":
            torch.mps.synchronize()
        elif self._device.type in ("cuda", "xpu"):
            backend = getattr(torch, self._device.type)
            event = backend.Event()
            event.record(backend.current_stream(self._device))  # the default is the stream of the first device
            self._events.append(event)
            if len(self._events) > 1:
                self._events.popleft().synchronize()
