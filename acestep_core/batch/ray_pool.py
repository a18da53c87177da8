"""Make the songs of a batch on a Ray cluster: one actor for each GPU, or for some CPUs."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..errors import RequestError, first_line
from .jobs import BatchJob, Outcome, SongMaker
from .run_batch import BatchStoppedError

log = logging.getLogger("acestep")

# Chunks of a worker: one is planned, one sampled and on a GPU one written.
IN_FLIGHT, IN_FLIGHT_GPU = 2, 3
ATTEMPTS = 5  # deaths of a worker with the same song alone
WAIT = 0.5  # seconds between two looks for Ctrl+C
SLOW_START = 60  # seconds until a warning that no worker has started
DEATHS = 10  # of workers in a row, without any song between them
NO_STATISTICS = "RAY_USAGE_STATS_ENABLED"


@dataclass(frozen=True)
class RayWorkers:
    """The workers of a batch.

    count: None for as many as fit into the cluster.
    gpus: of each worker, also a fraction; None for one if the cluster has GPUs.
    """

    count: int | None = None
    gpus: float | None = None
    cpus: float = 1


class RayPool:
    """Runs makers in actors of a Ray cluster that `ray_cluster` has connected to.

    A worker that dies, alone or with its node, loses the songs that it has in hand. They are made again one by one, so
    that a song that kills its worker costs that song alone.

    new_maker: creates the maker of a worker. It can be pickled.
    packed: returns a job that needs no files of this machine.
    """

    def __init__(
        self,
        new_maker: Callable[[], SongMaker],
        workers: RayWorkers,
        packed: Callable[[BatchJob], BatchJob] = lambda job: job,
    ):
        import ray

        self._packed = packed
        cluster = ray.cluster_resources()
        gpus = (1.0 if cluster.get("GPU") else 0.0) if workers.gpus is None else workers.gpus
        fit = int(cluster.get("GPU", 0) / gpus) if gpus else int(cluster.get("CPU", 0) / workers.cpus)
        self.count, self.gpus = workers.count or fit, gpus
        if self.count < 1:
            has = ", ".join(f"{cluster.get(name, 0):g} {name}s" for name in ("GPU", "CPU"))
            raise RequestError(
                f"--ray: no worker of {gpus:g} GPUs and {workers.cpus:g} CPUs fits; the cluster has {has}"
            )
        self._in_flight = IN_FLIGHT_GPU if gpus else IN_FLIGHT
        actor = ray.remote(_RayWorker).options(num_gpus=gpus, num_cpus=workers.cpus, max_concurrency=self._in_flight)
        self._start: Callable[[], Any] = lambda: actor.remote(new_maker)
        self._attempts: Counter[int] = Counter()
        self._again: deque[BatchJob] = deque()
        self._workers: list[_Member] = []
        self._deaths = 0

    def run(self, chunks: Iterable[Sequence[BatchJob]]) -> Iterator[Sequence[Outcome]]:
        """Yield the outcomes of each chunk when it is made. Few chunks of a worker are under way at a time."""
        import ray

        waiting = deque(chunks)
        if not waiting:
            return
        started = time.monotonic()
        self._workers = [_Member.start(self._start) for _ in range(self.count)]
        try:
            while waiting or self._again or any(member.in_hand for member in self._workers):
                self._dispatch(waiting)
                refs = [ref for member in self._workers for ref in member.refs()]
                finished, _ = ray.wait(refs, timeout=WAIT)
                for ref in finished:
                    yield from self._collect(ref)
                if started and any(member.is_ready for member in self._workers):
                    started = 0.0
                if started and time.monotonic() - started > SLOW_START:
                    log.warning("--ray: no worker has started yet; `ray status` shows what the cluster waits for")
                    started = 0.0
        finally:
            for member in self._workers:
                ray.kill(member.actor)

    def _dispatch(self, waiting: deque[Sequence[BatchJob]]) -> None:
        """Give chunks to workers, the least busy ones first.

        A song that has lost its worker goes to an idle worker that has made songs before, if there are others to make.
        """
        spared = len(self._again)  # workers that get nothing until they are idle
        for load in range(self._in_flight):
            for member in self._workers:
                if not member.is_ready or len(member.in_hand) != load or member.is_alone:
                    continue
                if self._again and load == 0 and (member.is_warm or not waiting):
                    member.give([self._packed(self._again.popleft())], alone=True)
                elif load and member.is_warm and spared:
                    spared -= 1
                elif waiting:
                    member.give([self._packed(job) for job in waiting.popleft()])

    def _collect(self, ref: Any) -> Iterator[list[Outcome]]:
        import ray

        member = next((each for each in self._workers if ref in each.refs()), None)
        if member is None:  # its worker died meanwhile
            return
        try:
            result = ray.get(ref)
        except ray.exceptions.RayError as error:
            yield from self._replace(member, error)
            return
        if ref == member.ready:
            member.is_ready = True
            return
        del member.in_hand[ref]
        member.is_warm = True
        self._deaths = 0
        yield result

    def _replace(self, member: _Member, error: Exception) -> Iterator[list[Outcome]]:
        """Start another worker in place of a dead one. Yield the outcomes of songs that are given up."""
        import ray

        self._deaths += 1
        if self._deaths >= max(DEATHS, ATTEMPTS * self.count):
            raise BatchStoppedError(f"--ray: {self._deaths} workers ended before they made a song: {_reason(error)}")
        log.info("a worker has ended: %s", _reason(error))
        ray.kill(member.actor)
        self._workers[self._workers.index(member)] = _Member.start(self._start)
        given_up = []
        for job in (job for chunk in member.in_hand.values() for job in chunk):
            self._attempts[job.number] += member.is_alone
            if self._attempts[job.number] < ATTEMPTS:
                self._again.append(job)
            else:
                sentence = f"{job.place}: its worker ended {ATTEMPTS} times while it was made: {_reason(error)}"
                given_up.append(Outcome(job.number, error=sentence))
        if given_up:
            self._deaths = 0
            yield given_up


@dataclass(eq=False)
class _Member:
    """A worker as the pool sees it.

    is_warm: True after its first song.
    is_alone: True while it makes a song that may have killed another worker.
    """

    actor: Any
    ready: Any
    in_hand: dict[Any, Sequence[BatchJob]] = field(default_factory=dict)
    is_ready: bool = False
    is_warm: bool = False
    is_alone_now: bool = False

    @classmethod
    def start(cls, start: Callable[[], Any]) -> _Member:
        actor = start()
        return cls(actor, actor.ready.remote())

    @property
    def is_alone(self) -> bool:
        return self.is_alone_now and bool(self.in_hand)

    def refs(self) -> list[Any]:
        return [*self.in_hand] if self.is_ready else [self.ready]

    def give(self, jobs: Sequence[BatchJob], alone: bool = False) -> None:
        self.is_alone_now = alone
        self.in_hand[self.actor.make.remote(jobs)] = jobs


class _RayWorker:
    def __init__(self, new_maker: Callable[[], SongMaker]):
        self._maker = new_maker()

    def ready(self) -> bool:
        return True

    def make(self, jobs: Sequence[BatchJob]) -> list[Outcome]:
        return self._maker.make(jobs)


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one on this machine without an address. Raises RequestError."""
    try:
        import ray
    except ImportError:
        raise RequestError("--ray: Ray is not installed; `pip install 'acestep-nodes[ray]'` installs it") from None
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    given = os.environ.get(NO_STATISTICS)
    if address is None and "RAY_ADDRESS" not in os.environ:
        options["include_dashboard"] = False
        os.environ[NO_STATISTICS] = given or "0"  # read by the processes of the new cluster
    try:
        ray.init(address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RequestError(f"--ray: no cluster at {address or 'this machine'}: {first_line(error)}") from error
    finally:
        if given is None:
            os.environ.pop(NO_STATISTICS, None)
    try:
        yield
    finally:
        ray.shutdown()


def _reason(error: Exception) -> str:
    """Return the line of Ray's error that says why, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = next((line for line in reversed(lines) if "Error" in line or "exit" in line), first_line(error))
    return line.partition(" Some common causes")[0].rpartition("Worker exit detail: ")[2][:300]
