"""Make the songs of a batch in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from .jobs import BatchJob, Outcome, SongMaker

WAIT = 0.5  # seconds; on Windows, Ctrl+C does not end a longer wait


class LocalPool:
    """Runs a maker in threads of this process.

    threads: chunks at a time. With two, the second is planned while the first is sampled.
    cancel: makes running calls of the maker end soon.
    """

    def __init__(self, maker: SongMaker, threads: int, cancel: Callable[[], None]):
        self._maker, self._threads, self._cancel = maker, threads, cancel

    def run(self, chunks: Iterable[Sequence[BatchJob]]) -> Iterator[Sequence[Outcome]]:
        """Yield the outcomes of each chunk in the order in which they are made."""
        if self._threads == 1:
            yield from map(self._maker.make, chunks)
            return
        waiting = iter(chunks)
        executor = ThreadPoolExecutor(self._threads)
        running: set[Future[list[Outcome]]] = set()
        try:
            while True:
                while len(running) < self._threads and (chunk := next(waiting, None)) is not None:
                    running.add(executor.submit(self._maker.make, chunk))
                if not running:
                    return
                finished, running = wait(running, WAIT, FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            self._cancel()
            executor.shutdown(cancel_futures=True)
