"""Where a result is written: known to be possible before any work is done for it, and there when it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import RequestError


def check_place(path: str | Path) -> Path:
    """The path, when a file can be made there. Raises RequestError."""
    path = Path(path)
    try:
        if path.is_dir() or not path.parent.is_dir():
            problem = "it is a folder" if path.is_dir() else f"the folder {path.parent} does not exist"
            raise RequestError(f"cannot write {path}: {problem}")
        trial = _beside(path, "attempt")  # the only way to know that works everywhere
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror or error}") from error
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write instead of `path`, which it replaces at the end, where nothing was raised, or is removed."""
    partial = _beside(path, "partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with suppress(OSError):  # what went wrong before is what is to be known
            partial.unlink()


def _beside(path: Path, suffix: str) -> Path:
    """A hidden name in the same folder."""
    return path.with_name(f".{path.name}.{suffix}")
