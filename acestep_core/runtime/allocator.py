"""The allocator of the C library."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
LARGEST = 2**31 - 1  # bytes, an int


def keep_freed_memory() -> bool:
    """Let glibc reuse the memory of freed tensors instead of returning it to the system. Return whether it does.

    Without this, each new activation on the CPU costs page faults. The process keeps its peak memory until it ends, so
    that only a process of our own should call this. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(TRIM_THRESHOLD, LARGEST)) and bool(mallopt(MMAP_THRESHOLD, LARGEST))
