"""Make the songs of a list: what is left of it, chunk by chunk, with progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import AceStepError
from .jobs import BatchJob, Outcome, Pool, chunks_of
from .outputs import BatchOutput


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
    started: float = field(default_factory=time.monotonic)

    @property
    def songs_per_hour(self) -> float:
        """Rows made or failed per hour, 0 at the beginning."""
        seconds = time.monotonic() - self.started
        return 3600 * (self.done + self.failed) / seconds if seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the end, None at the beginning."""
        rate = self.songs_per_hour
        return 3600 * (self.total - self.done - self.failed) / rate if rate else None

    def __str__(self) -> str:
        failed = self.failed + self.refused
        text = f"{self.earlier + self.done} of {self.earlier + self.total + self.refused} songs"
        text += f", {failed} failed" if failed else ""
        left = self.seconds_left
        if left:
            text += f"; {self.songs_per_hour:.0f} songs an hour, {_duration(left)} left"
        return text


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
    progress.started = time.monotonic()
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
        output.finish(outcomes)
        progress.done += sum(not outcome.error for outcome in outcomes)
        progress.failed += sum(bool(outcome.error) for outcome in outcomes)
        report(progress, outcomes)
        for outcome in outcomes:
            if outcome.fatal:
                raise BatchStoppedError(f"{outcome.error}; free some space and start again: what is written stays")


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return (
        f"{minutes:.0f} minutes" if minutes < 90 else f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
    )
