"""Where a result is written: known to be possible before any work is done for it, and there when it is whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import RequestError


def check_output_path(path: str | Path) -> Path:
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


def read_text(path: str | Path, what: str) -> str:
    """A file of UTF-8, `-` for standard input."""
    try:
        # Bytes, because Windows decodes its standard input as an old code page.
        content = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise RequestError(f"the {what} {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"the {what} {path} cannot be read as UTF-8 text: {error}") from error


def write_text(path: str | Path, text: str) -> None:
    """Writes a file as UTF-8, replacing it when all is written."""
    path = Path(path)
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror or error}") from error
