"""Memory, waiting and launches of a device. A test replaces it by a simulated one."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .registry import NotHere

OUT_OF_MEMORY = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)  # its name before torch 2.5


class Device:
    """A torch device, and its numbers."""

    def __init__(self, device: torch.device):
        self.torch = device
        # torch.mps has other names, and torch.cpu counts nothing.
        self._backend: Any = getattr(torch, device.type) if device.type in ("cuda", "xpu") else None

    @property
    def is_gpu(self) -> bool:
        return self.torch.type != "cpu"

    @property
    def has_own_memory(self) -> bool:
        """True if the device has memory that it counts and that other programs share."""
        return self._backend is not None

    @property
    def has_graphs(self) -> bool:
        return self.torch.type == "cuda" and not torch.version.hip

    def synchronize(self) -> None:
        if self._backend is not None:
            self._backend.synchronize(self.torch)
        elif self.torch.type == "mps":
            torch.mps.synchronize()

    def allocated(self) -> int:
        """Return the bytes of living tensors, after garbage collection. Raises NotHere."""
        gc.collect()
        self.synchronize()
        if self._backend is not None:
            return self._backend.memory_allocated(self.torch)
        if self.torch.type == "mps":
            return torch.mps.current_allocated_memory()
        raise NotHere("a CPU does not count the memory of its tensors")

    def free_bytes(self) -> int | None:
        """Return the bytes that a program can still allocate, or None if the device does not tell."""
        if self.torch.type == "cuda":
            return torch.cuda.mem_get_info(self.torch)[0]
        return None

    def peak(self, work: Callable[[], object]) -> int:
        """Return the most bytes that tensors need at once during the work, beyond those before it. Raises NotHere."""
        if self._backend is not None:
            self.release()
            before = self.allocated()
            self._backend.reset_peak_memory_stats(self.torch)
            work()
            self.synchronize()
            return self._backend.max_memory_allocated(self.torch) - before
        if self.torch.type == "mps":
            raise NotHere("Metal does not report the peak of its memory")
        return _profiled_peak(work)

    def release(self) -> None:
        """Return unused memory to the driver."""
        gc.collect()
        if self._backend is not None:
            self._backend.empty_cache()

    @contextmanager
    def memory_limit(self, more: int) -> Iterator[None]:
        """Let tensors take at most `more` bytes in addition to those that live now. Raises NotHere."""
        if self.torch.type != "cuda":
            raise NotHere(f"torch limits the memory of CUDA devices only, and this is {self.torch}")
        self.release()
        total = torch.cuda.get_device_properties(self.torch).total_memory
        # The limit counts what the allocator has reserved, which is at least what lives.
        reserved = max(torch.cuda.memory_reserved(self.torch), self.allocated())
        torch.cuda.set_per_process_memory_fraction(min(1.0, (reserved + more) / total), self.torch)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self.torch)

    def count_launches(self, work: Callable[[], object]) -> tuple[int, int]:
        """Return how many kernels or graphs the work launches, and how often the host waits. Raises NotHere."""
        if self.torch.type != "cuda":
            raise NotHere(f"torch's profiler counts the launches of CUDA devices only, and this is {self.torch}")
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            work()
        names = [event.name for event in profile.events()]
        launches = sum("LaunchKernel" in name or "GraphLaunch" in name for name in names)
        # The wait at the end of a profile is the profiler's own.
        waits = sum("StreamSynchronize" in name or "EventSynchronize" in name for name in names)
        if not launches:
            raise NotHere("torch's profiler sees no launches here (CUPTI is missing or needs more rights)")
        return launches, waits


def _profiled_peak(work: Callable[[], object]) -> int:
    """Return the peak on a CPU, from the profiler's record of allocations."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        work()
    alive = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            most = max(most, alive)
    return most
