"""Where a result is written: known to be possible before any work is done for it."""

from __future__ import annotations

from pathlib import Path

from .errors import RequestError


def check_place(path: str | Path) -> Path:
    """The path, when a file can be made there. Raises RequestError."""
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        problem = "it is a folder" if path.is_dir() else f"the folder {path.parent} does not exist"
        raise RequestError(f"cannot write {path}: {problem}")
    trial = beside(path, "attempt")  # the only way to know that works everywhere
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def beside(path: Path, suffix: str) -> Path:
    """A hidden name in the same folder."""
    return path.with_name(f".{path.name}.{suffix}")
