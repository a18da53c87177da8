"""Run the steps of a loop as CUDA graphs: warm-ups first, then one capture, then replays."""

from __future__ import annotations

import gc
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import nn

Result = TypeVar("Result")

WARM_UPS = 2  # the first run compiles, plans and allocates workspaces; the second runs as the graph will


def capture_obstacle(device: torch.device, *networks: nn.Module) -> str:
    """Return why steps of these networks cannot be captured on `device`, or an empty string if they can.

    A captured step needs an NVIDIA GPU that holds all weights. ROCm has graphs, too, but they gain little there and
    hang on some GPUs. With cudaMallocAsync a failed capture would break the allocator for the rest of the process.
    """
    if device.type != "cuda" or torch.version.hip:
        return f"{device} is no NVIDIA GPU"
    if torch.cuda.get_allocator_backend() == "cudaMallocAsync":
        return "the memory allocator of PyTorch is cudaMallocAsync"
    tensors = (tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))
    if any(tensor.device.type != "cuda" for tensor in tensors):
        return f"{device} does not hold all weights"
    return ""


def can_capture(device: torch.device, *networks: nn.Module) -> bool:
    """True if steps of these networks can be captured. See `capture_obstacle` for the conditions."""
    return not capture_obstacle(device, *networks)


class StepGraphs:
    """The steps of one run. Each becomes a CUDA graph.

    The first two runs of a step are its warm-up. The third run captures the step, and replays start there. A failed
    capture ends all graphs of the run, and `report` gets a sentence.

    Every run, also a warm-up, is on a stream that no other living object uses. A capture then finds the cuBLAS
    workspace of its stream, which otherwise would be created in the memory of the graph. torch may free this workspace
    with any graph of the stream (pytorch/pytorch#193402), so graphs on one stream live and die together.

    All graphs share one memory pool, as only one step runs at a time. The next run of any step overwrites a result.
    """

    def __init__(self, device: torch.device, report: Callable[[str], None]):
        self._device, self._report = device, report
        self._stream = _take_stream(device)
        self._pool: Any = None
        self._warm_ups: Counter[Hashable] = Counter()
        self._captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, Any]] = {}
        self._works = True
        weakref.finalize(self, _give_back, device, self._stream, self._captured).atexit = False

    def __call__(self, key: Hashable, step: Callable[[], Result]) -> Result:
        """Run a step and return its result.

        key: identifies the step. Calls with equal keys do the same work on the same tensors, which a step changes in
            place.
        """
        if self._works and key not in self._captured and self._warm_ups[key] == WARM_UPS:
            self._capture(key, step)
        if not self._works:
            return step()
        with self._on_stream():
            if key in self._captured:
                graph, result = self._captured[key]
                graph.replay()
                return result
            self._warm_ups[key] += 1
            return step()

    def _capture(self, key: Hashable, step: Callable[[], Result]) -> None:
        """Capture a step, which does not run it."""
        graph = torch.cuda.CUDAGraph()
        with self._on_stream():
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            # "thread_local": other threads of a host may allocate memory meanwhile.
            capture = torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local")
            try:
                with _paused_collection(), capture:
                    result = step()
            except RuntimeError as error:
                self._works = False
                _close_pool(self._pool)
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                self._report(f"CUDA graphs are not used: a step could not be captured ({reason})")
            else:
                self._captured[key] = graph, result

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        """Run on the capture stream, between the earlier and the later work of the current stream.

        torch before 2.12 stays on the capture stream after a failed capture. The end of this block corrects that.
        """
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        try:
            with torch.cuda.stream(self._stream):  # sets the device as well
                yield
        finally:
            usual.wait_stream(self._stream)


# Streams are reused, as each keeps a cuBLAS workspace and torch has 32 of them only, which others use as well.
_idle_streams: defaultdict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)


def _take_stream(device: torch.device) -> torch.cuda.Stream:
    with suppress(IndexError):
        return _idle_streams[device].pop()
    return torch.cuda.Stream(device)


def _give_back(device: torch.device, stream: torch.cuda.Stream, captured: dict) -> None:
    captured.clear()  # before another owner has the stream
    _idle_streams[device].append(stream)


@contextmanager
def _paused_collection() -> Iterator[None]:
    """Pause the garbage collector, which may free GPU objects of others. A capture does not allow that."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
