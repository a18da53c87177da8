"""Make the songs of a list: what is left of it, chunk by chunk, with progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import AceStepError, RequestError
from .jobs import BatchJob, Outcome, Pool, chunks_of
from .outputs import BatchOutput

ADVICE = "free some space and start again: what is written stays"


@dataclass
class BatchProgress:
    """Progress of a batch, in rows of the list.

    total: rows to make in this run, without the refused ones.
    earlier: rows that an earlier run made.
    refused: rows that are not valid.
    """

    total: int
    earlier: int = 0
    refused: int = 0
    done: int = 0
    failed: int = 0
    _first: tuple[float, int] | None = None

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Add the outcomes of a chunk."""
        self.done += sum(not outcome.error for outcome in outcomes)
        self.failed += sum(bool(outcome.error) for outcome in outcomes)
        if self._first is None:  # loading the models took most of this time
            self._first = time.monotonic(), self.done + self.failed

    @property
    def songs_per_hour(self) -> float:
        """Rows done or failed per hour since the first chunk, 0 before the second one."""
        if self._first is None:
            return 0.0
        since, count = self._first
        return 3600 * (self.done + self.failed - count) / max(time.monotonic() - since, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the end, None at the beginning."""
        rate = self.songs_per_hour
        return 3600 * (self.total - self.done - self.failed) / rate if rate else None

    def __str__(self) -> str:
        failed = self.failed + self.refused
        text = f"{self.earlier + self.done} of {self.earlier + self.total + self.refused} songs"
        text += f", {failed} failed" if failed else ""
        rate, left = self.songs_per_hour, self.seconds_left
        text += f"; {rate:.0f} songs an hour" if rate else ""
        return text + (f", {_duration(left)} left" if left else "")


class BatchStoppedError(AceStepError):
    """A batch that cannot go on, as on a full disk. The songs that are written stay."""


def run_batch(
    jobs: Sequence[BatchJob],
    refused: Sequence[Outcome],
    pool: Pool,
    output: BatchOutput,
    report: Callable[[BatchProgress, Sequence[Outcome]], None],
    *,
    together: int = 1,
) -> BatchProgress:
    """Make all songs that the output lacks.

    refused: outcomes of rows that are not valid.
    report: runs at the beginning and after every chunk.
    together: the largest number of songs of a chunk.

    Raises RequestError, BatchStoppedError and Cancelled.
    """
    left = output.begin(jobs)
    progress = BatchProgress(len(left), len(jobs) - len(left), len(refused))
    output.finish(refused)
    report(progress, refused)
    try:
        _make_left(pool, chunks_of(left, together), output, progress, report)
    finally:
        output.close()
    return progress


def _make_left(
    pool: Pool,
    chunks: Sequence[Sequence[BatchJob]],
    output: BatchOutput,
    progress: BatchProgress,
    report: Callable[[BatchProgress, Sequence[Outcome]], None],
) -> None:
    for outcomes in pool.run(chunks):
        try:
            output.finish(outcomes)
        except RequestError as error:
            raise BatchStoppedError(f"{error}; {ADVICE}") from error
        progress.count(outcomes)
        report(progress, outcomes)
        for outcome in outcomes:
            if outcome.fatal:
                raise BatchStoppedError(f"{outcome.error}; {ADVICE}")


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return (
        f"{minutes:.0f} minutes" if minutes < 90 else f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
    )
