"""A `Device` on the simulated CUDA device, which counts memory, launches and waits as a card would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
import transformers.models.qwen3.modeling_qwen3  # noqa: F401  # its import fails on the simulation's stand-ins
from torch import Tensor

from benchmarks.meter import Meter
from tests.support import simulated_cuda as simulation
from tests.support.simulated_cuda import CUDA, SYNCS, Graph, SimulatedTensor, simulated_cuda

from .device import OUT_OF_MEMORY, Device


class SimulatedDevice(Device):
    """A card that counts the storages of its tensors."""

    def __init__(self, meter: Meter):
        super().__init__(CUDA)
        self.meter = meter
        self.limit: float = float("inf")

    def add(self, tensor: Tensor) -> None:
        """Count a new tensor. Raises torch's out-of-memory error above the limit."""
        self.meter.add([tensor])
        if self.meter.now > self.limit:
            raise OUT_OF_MEMORY("CUDA out of memory (simulated)")

    @contextmanager
    def memory_limit(self, more: int) -> Iterator[None]:
        self.limit = self.allocated() + more
        try:
            yield
        finally:
            self.limit = float("inf")

    def count_launches(self, work: Callable[[], object]) -> tuple[int, int]:
        counts = [0, 0]
        perform, replay = simulation.perform, Graph.replay

        def counted(function, arguments, options):
            on_gpu = any(isinstance(each, SimulatedTensor) for each in arguments)
            counts[0] += on_gpu and function not in SYNCS
            counts[1] += on_gpu and function in SYNCS
            return perform(function, arguments, options)

        def replayed(graph):
            counts[0] += 1
            return replay(graph)

        with mock.patch.object(simulation, "perform", counted), mock.patch.object(Graph, "replay", replayed):
            work()
        return counts[0], counts[1]


@contextmanager
def simulated_device() -> Iterator[SimulatedDevice]:
    """Simulate a card within the block."""
    device = SimulatedDevice(Meter())
    create = SimulatedTensor.__new__

    def counted(cls, values: Tensor) -> SimulatedTensor:
        device.add(values)
        return create(cls, values)

    def restart(_: object = None) -> None:
        device.meter.peak = device.meter.now

    memory = {
        "memory_allocated": lambda _=None: device.meter.now,
        "max_memory_allocated": lambda _=None: device.meter.peak,
        "reset_peak_memory_stats": restart,
    }
    with ExitStack() as stack:
        stack.enter_context(simulated_cuda())
        stack.enter_context(mock.patch.multiple(torch.cuda, **memory))
        stack.enter_context(mock.patch.object(SimulatedTensor, "__new__", staticmethod(counted)))
        yield device
