"""The streams of the simulated CUDA device: which work is ordered, and who owns cuBLAS workspaces.

Work on the simulated device runs at once, in order. These clocks find the work that a real device could run in another
order: each stream counts its operations, and knows up to which operation of other streams it has waited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

MATMULS = {"mm", "addmm", "bmm", "baddbmm"}  # operations of cuBLAS, which have a workspace


class RaceError(RuntimeError):
    """An operation uses memory that another stream may still write or read."""


class Clock(Counter):
    """Numbers of finished operations per stream."""

    def merge(self, other: Clock) -> None:
        for stream, count in other.items():
            self[stream] = max(self[stream], count)


class SimulatedStream:
    def __init__(self, *_: object, **__: object):
        self.clock = Clock()

    def wait_stream(self, other: SimulatedStream) -> None:
        self.clock.merge(other.clock)

    def wait_event(self, event: SimulatedEvent) -> None:
        self.clock.merge(event.clock)

    def synchronize(self) -> None:
        DEVICE.host.merge(self.clock)


class SimulatedEvent:
    def __init__(self, *_: object, **__: object):
        self.clock = Clock()

    def record(self, stream: SimulatedStream | None = None) -> None:
        self.clock = Clock((stream or DEVICE.stream).clock)

    def synchronize(self) -> None:
        DEVICE.host.merge(self.clock)


@dataclass
class Workspace:
    """The workspace that cuBLAS has for a stream."""

    freed: bool = False


@dataclass(frozen=True)
class Capture:
    """The conditions of one capture.

    warm: all cuBLAS workspaces existed before.
    """

    stream: SimulatedStream
    pool: object
    collecting: bool
    warm: bool


@dataclass
class DeviceState:
    """The state of the simulated device.

    stream: the current one.
    host: what the host has waited for.
    made: the number of streams that were created.
    """

    default: SimulatedStream = field(default_factory=SimulatedStream)
    host: Clock = field(default_factory=Clock)
    workspaces: dict[SimulatedStream, Workspace] = field(default_factory=dict)
    captures: list[Capture] = field(default_factory=list)
    pools: int = 0
    made: int = 0
    allocator: str = "native"

    def __post_init__(self) -> None:
        self.stream = self.default

    def reset(self) -> None:
        self.stream, self.allocator = self.default, "native"
        self.captures, self.made = [], 0

    def new_stream(self, *_: object, **__: object) -> SimulatedStream:
        self.made += 1
        return SimulatedStream()

    def new_pool(self) -> tuple[int, int]:
        self.pools += 1
        return 0, self.pools

    def set_stream(self, stream: SimulatedStream) -> None:
        self.stream = stream

    @contextmanager
    def use_stream(self, stream: SimulatedStream) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    def wait(self) -> None:
        """Let the host wait for the current stream."""
        self.host.merge(self.stream.clock)

    def matmul_workspace(self) -> Workspace:
        return self.workspaces.setdefault(self.stream, Workspace())

    def free_workspace(self, stream: SimulatedStream) -> None:
        """Free the workspace of a stream, as torch does when it destroys a graph of this stream."""
        if stream in self.workspaces:
            self.workspaces.pop(stream).freed = True

    def access(self, read: Iterable[Tensor], written: Iterable[Tensor]) -> None:
        """Note an operation on the current stream. Raise RaceError if it is not ordered with earlier ones."""
        stream = self.stream
        known = stream.clock
        known.merge(self.host)
        known[stream] += 1
        now = known[stream]
        writes = [_accesses(tensor) for tensor in written]
        for accesses in (*writes, *map(_accesses, read)):
            self._require(known, accesses.written)
        for accesses in writes:
            self._require(known, accesses.read)
            accesses.written, accesses.read = Clock({stream: now}), Clock()
        for tensor in read:
            _accesses(tensor).read[stream] = now

    def _require(self, known: Clock, accesses: Clock) -> None:
        if any(known[stream] < count for stream, count in accesses.items()):
            raise RaceError("this memory is in use on another stream, which the current stream did not wait for")


@dataclass
class _Accesses:
    """The last operations on a memory, per stream."""

    written: Clock = field(default_factory=Clock)
    read: Clock = field(default_factory=Clock)


def _accesses(tensor: Tensor) -> _Accesses:
    storage = tensor.untyped_storage()
    if not hasattr(storage, "accesses"):
        storage.accesses = _Accesses()
    return storage.accesses


DEVICE = DeviceState()
