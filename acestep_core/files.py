"""Check that an output path is writable, write files atomically, read text files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import RequestError


def check_output_path(path: str | Path) -> Path:
    """Return the path if a file can be created there, else raise RequestError."""
    path = Path(path)
    try:
        if path.is_dir():
            raise RequestError(f"{path} cannot be written: it is a folder")
        if not path.parent.is_dir():
            raise RequestError(f"{path} cannot be written: the folder {path.parent} does not exist")
        trial = _hidden_sibling(path, "attempt")  # only an attempt shows permissions on every system
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, delete it on an error."""
    partial = _hidden_sibling(path, "partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with suppress(OSError):  # do not hide the first error
            partial.unlink()


def _hidden_sibling(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{suffix}")


def read_text(path: str | Path, role: str) -> str:
    """Read a UTF-8 file, or standard input if `path` is "-". `role` names the file in the RequestError."""
    try:
        # Bytes, because Windows decodes standard input with an old code page.
        content = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise RequestError(f"{role} {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{role} {path} cannot be read as UTF-8 text: {error}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file atomically. Raises RequestError."""
    path = Path(path)
    try:
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error
