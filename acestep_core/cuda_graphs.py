"""CUDA graphs: what a function asks of a card, recorded once, so that it can be asked for again in one go."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable

import torch
from torch import nn

_refused: set[torch.device] = set()  # where a recording has failed


def can_record(device: torch.device, *networks: nn.Module) -> bool:
    """Whether steps of these networks can be recorded: on a card of NVIDIA's that holds all of their weights.

    ROCm has graphs, too, but they gain little there and hang on some cards.
    """
    if device.type != "cuda" or torch.version.hip or device in _refused:
        return False
    tensors = (tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))
    return all(tensor.device.type == "cuda" for tensor in tensors)


def recorded(
    step: Callable[[], None], device: torch.device, tell: Callable[[str], None]
) -> torch.cuda.CUDAGraph | None:
    """`step`, recorded and not run; or None where that fails, with a sentence for `tell`, and for good.

    It must have run before, as a first run does what no recording may, and keep its state in tensors that it changes
    in place. Before torch 2.12 its allocator may not recover from a failure: memory it no longer needs then stays its.
    """
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    with torch.cuda.device(device):  # around everything: choosing a stream chooses its card, too
        try:
            # Other threads of a host may go on asking for memory meanwhile.
            with torch.cuda.graph(graph, stream=_lane(device), capture_error_mode="thread_local"):
                step()
        except RuntimeError as error:
            if not isinstance(error, torch.cuda.OutOfMemoryError):  # there may be more of it the next time
                _refused.add(device)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            tell(f"CUDA graphs are not used: a step could not be recorded ({reason})")
            return None
        finally:
            torch.cuda.set_stream(before)  # torch stays on the other where a recording fails
    return graph


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
