"""The output of a batch: song files and the manifest in one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import RequestError
from ..files import atomic_write
from .jobs import BatchJob, Outcome
from .manifest import NAME, Manifest

WriteFile = Callable[[Path], None]


class SongStore(Protocol):
    """A place for the files of a maker."""

    def store(self, name: str, write: WriteFile) -> bytes | None:
        """Call `write` with a path. Return the bytes of the file if the caller shall write it."""
        ...


class SongFolder:
    """A folder that the maker itself writes to. Raises RequestError if the folder cannot be created."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"output: {folder} cannot be created: {error.strerror or error}") from error

    def store(self, name: str, write: WriteFile) -> None:
        write(self.folder / name)


class BatchOutput:
    """The folder of a batch as its process sees it: which songs are there, and the manifest.

    store: for a maker in this process.
    """

    store: SongStore
    manifest: Manifest

    def __init__(self, folder: Path):
        self.store = SongFolder(folder)
        self._folder = folder
        self.manifest = Manifest(folder / NAME)

    def begin(self, jobs: Sequence[BatchJob]) -> list[BatchJob]:
        """Return the jobs that are still to be made. The manifest keeps the lines of the others alone.

        Raises RequestError.
        """
        lines = {name: entry for entry in self.manifest.entries if isinstance(name := _name_of(entry), str)}
        complete = [job for job in jobs if all(self._has(job, lines.get(name, {})) for name in job.files)]
        numbers = {job.number for job in complete}
        files = {name: job for job in complete for name in job.files}
        listed: set[str] = set()

        def wanted(entry: Mapping[str, Any]) -> bool:
            name = _name_of(entry)
            if not isinstance(name, str) or name not in files or name in listed or entry is not lines[name]:
                return False
            listed.add(name)
            return True

        self.manifest.keep(wanted)
        return [job for job in jobs if job.number not in numbers]

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Write the files that makers returned, then the lines of the manifest. Raises RequestError."""
        entries = []
        for outcome in outcomes:
            for song in outcome.songs:
                if song.data is not None:
                    self._save(song.file, song.data)
                entries.append(song.entry)
            if outcome.error:
                entries.append({"row": outcome.number, "error": outcome.error})
        self.manifest.add(entries)

    def close(self) -> None:
        """Bring the manifest to its place, if it is elsewhere. Raises RequestError."""

    def _save(self, name: str, data: bytes) -> None:
        path = self._folder / name
        try:
            with atomic_write(path) as file:
                file.write(data)
        except OSError as error:
            raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error

    def _has(self, job: BatchJob, entry: Mapping[str, Any]) -> bool:
        dropped = "dropped" in entry
        if entry.get("key") != job.entry_key(dropped):
            return False
        return dropped or self._exists(str(entry["file"]))

    def _exists(self, name: str) -> bool:
        return (self._folder / name).is_file()


def _name_of(entry: Mapping[str, Any]) -> object:
    return entry.get("file", entry.get("dropped"))
