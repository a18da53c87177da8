"""The device memory of a song, as measured, and how many songs fit into what is free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class MemoryUse:
    """Bytes that a song takes per latent frame, as measured on the device, and how many songs fit into what is free."""

    SHARE = 0.8  # of the free memory
    MOST = 16  # songs

    def __init__(self) -> None:
        self._per_frame = 0.0
        self._most = self.MOST

    def lower(self, songs: int) -> None:
        """Allow half of so many songs from now on."""
        self._most = max(1, songs // 2)

    def songs(self, device: torch.device | None, frames: int) -> int:
        """Return how many songs of so many frames to sample at once.

        A CPU makes one song after another: a batch is no faster there, and takes more memory. The first song of a
        model on a GPU is alone as well, and is measured.
        """
        backend = _backend(device)
        if backend is None or not self._per_frame:
            return 1
        free = backend.mem_get_info(device)[0]
        free += backend.memory_reserved(device) - backend.memory_allocated(device)
        return max(1, min(self._most, int(self.SHARE * free / (self._per_frame * frames))))

    @contextmanager
    def measured(self, device: torch.device | None, frames: int) -> Iterator[None]:
        """Measure the peak of what runs within, for so many frames of all songs."""
        backend = _backend(device)
        if backend is None:
            yield
            return
        backend.reset_peak_memory_stats(device)
        before = backend.memory_allocated(device)
        yield
        peak = backend.max_memory_allocated(device) - before
        self._per_frame = max(self._per_frame, peak / frames)


def _backend(device: torch.device | None) -> Any:
    """Return the module of torch that knows the memory of a device, None if there is none."""
    backend = getattr(torch, device.type, None) if device is not None and device.type in ("cuda", "xpu") else None
    return backend if hasattr(backend, "mem_get_info") else None
