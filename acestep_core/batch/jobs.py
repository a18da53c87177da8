"""The songs of a batch on their way: jobs for a maker, and the outcomes that it returns."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class BatchJob:
    """A row of the list that is to be made.

    number: its place in the list, from 1.
    key: identifies its content. A song of a manifest with this key is the song of this job.
    files: names of its files in the output folder, one for each take.
    model: jobs of one model follow each other, so that each model is loaded once.
    group: jobs of one group may be made together.
    content: for the maker. It can be pickled.
    place: the file and line, for messages.
    rules: of the filter that songs must pass.
    """

    number: int
    key: str
    files: tuple[str, ...]
    model: Hashable
    group: Hashable
    content: Any
    place: str = ""
    rules: str = ""

    def entry_key(self, dropped: bool) -> str:
        """Return the key in the manifest. If the rules change, a song that was dropped is made again."""
        return f"{self.key} {self.rules}" if dropped else self.key


@dataclass(frozen=True)
class MadeSong:
    """A song file, or the name of one that was dropped, and its line of the manifest.

    data: the bytes of the file, if the maker did not write it.
    """

    file: str
    entry: dict[str, Any]
    data: bytes | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of a job: its songs, or a sentence. fatal: True ends the batch, as on a full disk."""

    number: int
    songs: Sequence[MadeSong] = ()
    error: str = ""
    fatal: bool = False


class SongMaker(Protocol):
    """Makes songs. One call may run while another plans its songs."""

    def make(self, jobs: Sequence[BatchJob]) -> list[Outcome]:
        """Return one outcome for each job. Raises only Cancelled."""
        ...


class Pool(Protocol):
    """Runs makers on chunks of jobs."""

    def run(self, chunks: Iterable[Sequence[BatchJob]]) -> Iterable[Sequence[Outcome]]:
        """Yield the outcomes of each chunk when it is made. Takes few chunks ahead."""
        ...


def chunks_of(jobs: Sequence[BatchJob], size: int = 1) -> list[list[BatchJob]]:
    """Return the jobs in the order in which they are made, in chunks of one group with at most `size` jobs."""
    first: dict[Hashable, int] = {}
    for place, job in enumerate(jobs):
        first.setdefault(job.model, place)
        first.setdefault((job.model, job.group), place)
    chunks: list[list[BatchJob]] = []
    for job in sorted(jobs, key=lambda job: (first[job.model], first[job.model, job.group])):
        last = chunks[-1] if chunks else []
        if last and len(last) < size and (last[0].model, last[0].group) == (job.model, job.group):
            last.append(job)
        else:
            chunks.append([job])
    return chunks
