"""CUDA graphs: what a function asks of a card, recorded once, so that it can be asked for again in one go."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import nn


def can_capture(device: torch.device, *networks: nn.Module) -> bool:
    """Whether steps of these networks can be recorded: on a card of NVIDIA's that holds all of their weights.

    ROCm has graphs, too, but they gain little there and hang on some cards.
    """
    if device.type != "cuda" or torch.version.hip:
        return False
    tensors = (tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))
    return all(tensor.device.type == "cuda" for tensor in tensors)


def capture(step: Callable[[], None], device: torch.device, tell: Callable[[str], None]) -> torch.cuda.CUDAGraph | None:
    """`step`, recorded and not run; or None where that fails, with a sentence for `tell`.

    It must have run before, as a first run does what no recording may, and keep its state in tensors that it changes
    in place.
    """
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    with torch.cuda.device(device):  # around everything: choosing a stream chooses its card, too
        pool = torch.cuda.graph_pool_handle()
        try:
            # Other threads of a host may go on asking for memory meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=_lane(device), capture_error_mode="thread_local"):
                step()
        except RuntimeError as error:
            _leave(pool)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            tell(f"CUDA graphs are not used: a step could not be recorded ({reason})")
            return None
        finally:
            torch.cuda.set_stream(before)  # torch stays on the other where a recording fails
    return graph


def _leave(pool: tuple[int, int]) -> None:
    """Ends what torch leaves open before 2.12 where a recording fails (pytorch/pytorch#180395): its allocator would
    neither give memory back nor record ever again."""
    end = getattr(torch._C, "_cuda_endAllocateToPool", None)  # the other name is that of torch before 2.8
    end = end or getattr(torch._C, "_cuda_endAllocateCurrentStreamToPool", None)
    if end is None:
        return
    with suppress(RuntimeError):  # it was not left open
        device = torch.cuda.current_device()
        end(device, pool)
        torch._C._cuda_releasePool(device, pool)


@functools.cache
def _lane(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings of a card, as each stream has memory of its own."""
    return torch.cuda.Stream(device)


class Pace:
    """Holds the host back to one step (a token, one of sampling) ahead of an accelerator: progress is true, and a stop
    is prompt."""

    def __init__(self, device: torch.device):
        self._device = device
        self._events: deque = deque()

    def __call__(self) -> None:
        if self._device.type == "mps":
            torch.mps.synchronize()
        elif self._device.type in ("cuda", "xpu"):
            backend = getattr(torch, self._device.type)
            event = backend.Event()
            event.record(backend.current_stream(self._device))  # by itself it takes that of the first card
            self._events.append(event)
            if len(self._events) > 1:
                self._events.popleft().synchronize()
