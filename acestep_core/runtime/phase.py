"""Log one line for each phase of a run."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

log = logging.getLogger("acestep")


@contextmanager
def phase(stage: str, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Log time, device, dtype and memory when the block ends. The memory is the process's peak so far.

    The statistics of a GPU belong to the whole process, so a phase never resets them.
    """
    start = time.perf_counter()
    yield
    if device.type in ("cuda", "xpu"):
        getattr(torch, device.type).synchronize(device)
    seconds = time.perf_counter() - start
    log.info("%s: %.2f s, %s, %s, %s", stage, seconds, device, str(dtype).removeprefix("torch."), _memory(device))


def _memory(device: torch.device) -> str:
    if device.type in ("cuda", "xpu"):
        peak = getattr(getattr(torch, device.type), "max_memory_allocated", None)  # torch 2.5 has none for XPU
        return "memory unknown" if peak is None else f"{peak(device) / 2**30:.2f} GiB peak"
    if device.type == "mps":
        return f"{torch.mps.driver_allocated_memory() / 2**30:.2f} GiB"
    if sys.platform == "win32":
        return "memory unknown"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak / 2 ** (30 if sys.platform == 'darwin' else 20):.2f} GiB peak"
