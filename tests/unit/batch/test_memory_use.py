"""The number of songs at once, on a pretended GPU."""

import torch

from acestep_core.batch import memory_use
from acestep_core.batch.memory_use import MemoryUse


class Backend:
    """A device with 1000 free bytes. peak: what the next song takes."""

    peak = 100

    def mem_get_info(self, device):
        return 900, 2000

    def memory_reserved(self, device):
        return 150

    def memory_allocated(self, device):
        return 50

    def reset_peak_memory_stats(self, device):
        pass

    def max_memory_allocated(self, device):
        return 50 + self.peak


def test_the_free_memory_limits_the_songs(monkeypatch):
    monkeypatch.setattr(memory_use, "_backend", lambda device: Backend())
    use, device = MemoryUse(), torch.device("cuda")
    assert use.songs(device, 10) == 1  # nothing is measured yet
    with use.measured(device, 10):
        pass
    assert (use.songs(device, 10), use.songs(device, 20), use.songs(device, 1), use.songs(device, 1000)) == (
        8,
        4,
        16,
        1,
    )
    use.lower(8)
    assert (use.songs(device, 10), use.songs(device, 1)) == (4, 4)


def test_a_cpu_makes_one_song_after_another():
    use = MemoryUse()
    with use.measured(torch.device("cpu"), 10):
        pass
    assert use.songs(torch.device("cpu"), 10) == use.songs(None, 10) == 1
