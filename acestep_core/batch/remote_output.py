"""Outputs of a batch that its makers cannot write to as a folder: another machine, or a URL of fsspec."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfileobj
from typing import Any

from ..errors import RequestError, first_line
from .jobs import BatchJob, Outcome
from .manifest import NAME, Manifest
from .outputs import BatchOutput, WriteFile

INTERVAL = 30.0  # seconds between two uploads of the manifest


class ReturnedFiles:
    """Returns the bytes of each file, for the process that has the folder."""

    def store(self, name: str, write: WriteFile) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            write(path)
            return path.read_bytes()


class RemoteFiles:
    """Writes each file to a URL such as s3://bucket/folder, complete or not at all."""

    def __init__(self, url: str):
        self.url = url

    def store(self, name: str, write: WriteFile) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            write(path)
            upload(self.url, path)


class RemoteOutput(BatchOutput):
    """A URL of fsspec as the output of a batch.

    The manifest is uploaded every half minute and at the end. If the process is killed, the songs since the last upload
    are made again.
    """

    def __init__(self, url: str):
        self._url = url
        self._local = tempfile.TemporaryDirectory()
        self._files, self._root = open_url(url)
        self._uploaded = 0.0
        path = Path(self._local.name) / NAME
        try:
            self._files.makedirs(self._root, exist_ok=True)
            if self._files.exists(f"{self._root}/{NAME}"):
                self._files.get_file(f"{self._root}/{NAME}", str(path))
            self._names = {name.rsplit("/", 1)[-1] for name in self._files.ls(self._root, detail=False)}
        except Exception as error:  # each file system has its own
            raise RequestError(f"output: {url} cannot be read: {first_line(error)}") from error
        self.manifest = Manifest(path)
        self.store = RemoteFiles(url)

    def begin(self, jobs: Sequence[BatchJob]) -> list[BatchJob]:
        left = super().begin(jobs)
        upload(self._url, self.manifest.path)
        return left

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        super().finish(outcomes)
        if time.monotonic() - self._uploaded > INTERVAL:
            self.close()

    def close(self) -> None:
        upload(self._url, self.manifest.path)
        self._uploaded = time.monotonic()

    def _exists(self, name: str) -> bool:
        return name in self._names


def open_url(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it. Raises RequestError."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise RequestError(f"output: {url} needs fsspec; `pip install 'acestep-nodes[ray]'` installs it") from None
    try:
        files, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise RequestError(f"output: {url} cannot be opened: {first_line(error)}") from error
    return files, path.rstrip("/")


def upload(url: str, path: Path) -> None:
    """Write a file below a URL. A reader sees the old file or the new one. Raises RequestError."""
    files, root = open_url(url)
    try:
        with open(path, "rb") as source, files.transaction, files.open(f"{root}/{path.name}", "wb") as target:
            copyfileobj(source, target)
    except OSError as error:
        raise RequestError(f"{url}/{path.name} cannot be written: {error.strerror or error}") from error
