"""A maker of batches that writes text files, in this process or another."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from acestep_core.batch.jobs import BatchJob, MadeSong, Outcome
from acestep_core.batch.manifest import read_manifest
from acestep_core.batch.outputs import SongStore


def text_jobs(count: int) -> list[BatchJob]:
    """Return jobs of two groups."""
    return [BatchJob(n, f"key{n}", (f"{n}.txt",), "m", n % 2, f"song {n}", f"row {n}") for n in range(1, count + 1)]


def rows_of(folder: Path) -> list[int]:
    """Return the rows of the manifest that name a file. Each file is checked."""
    entries = [entry for entry in read_manifest(folder / "manifest.jsonl") if "file" in entry]
    assert all((folder / entry["file"]).read_text() == f"song {entry['row']}" for entry in entries)
    return sorted(entry["row"] for entry in entries)


@dataclass
class TextMaker:
    """Writes the content of each job.

    bad, full: numbers of jobs that fail, the second ones on a full disk.
    deadly: numbers of jobs that kill their process.
    deadly_once: numbers that kill their process if a folder `trace` has no file of the number.
    trace: folder with a file for each job that was begun.
    """

    store: SongStore
    bad: tuple[int, ...] = ()
    full: tuple[int, ...] = ()
    deadly: tuple[int, ...] = ()
    deadly_once: tuple[int, ...] = ()
    trace: Path | None = None
    seconds: float = 0.0
    seen: list[int] = field(default_factory=list)

    def make(self, jobs: Sequence[BatchJob]) -> list[Outcome]:
        """Return the outcomes of the jobs."""
        return [self._make(job) for job in jobs]

    def _make(self, job: BatchJob) -> Outcome:
        number = job.number
        self.seen.append(number)
        first = self.trace is None or not (self.trace / str(number)).exists()
        if self.trace is not None:
            with open(self.trace / str(number), "a") as file:
                file.write(f"{os.getpid()}\n")
        if number in self.deadly or (number in self.deadly_once and first):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        if number in self.bad + self.full:
            return Outcome(number, error="it failed", fatal=number in self.full)
        songs = []
        for name in job.files:
            data = self.store.store(name, lambda path: path.write_text(job.content) and None)
            songs.append(MadeSong(name, {"row": number, "file": name, "key": job.key}, data))
        return Outcome(number, songs)
