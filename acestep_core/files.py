"""Check that an output path is writable, write files atomically, read text and JSON files of unknown origin."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from .errors import CheckpointError, RequestError, first_line, shown

MAX_DEPTH = 20  # of nested lists and objects in JSON; our files have 3
MAX_DIGITS = 20  # of a whole number in JSON, as 2**64 has
_TOO_DEEP = f"lists and objects are nested more than {MAX_DEPTH} times"
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # errors of file systems without fsync


def check_output_path(path: str | Path, suffix: str = "") -> Path:
    """Return the path if a file can be created there, and ends in `suffix` if one is given. Raises RequestError."""
    path = Path(path)
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError(f"{str(path)!r} cannot be written: the name is not valid UTF-8") from None
    try:
        if path.is_dir():
            raise RequestError(f"{path} cannot be written: it is a folder")
        if suffix and path.suffix.lower() != suffix:
            raise RequestError(f"output: must end in {suffix}, got {shown(str(path))}")
        if not path.parent.is_dir():
            raise RequestError(f"{path} cannot be written: the folder {path.parent} does not exist")
        with suppress(FileNotFoundError):
            kind = path.lstat().st_mode  # also fails for a name that is too long
            if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
                raise RequestError(f"{path} cannot be written: it is a device, not a file")
        trial = _new_sibling(path)  # only an attempt shows permissions on every system
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file in the same folder; rename it to `path` when it is on disk, delete it on an error.

    A link at `path` is replaced, and its target stays. Raises OSError.
    """
    partial = _new_sibling(path)
    try:
        with open(partial, "x+b") as file:
            yield file
            file.flush()
            _sync(file)
        os.replace(partial, path)
    finally:
        with suppress(OSError):  # do not hide the first error
            partial.unlink()


@contextmanager
def reserve(names: Iterable[Path]) -> Iterator[Path]:
    """Yield the first of these paths that is free, as an empty file, so that no other run takes the name.

    On an error, the empty file is deleted. Raises RequestError.
    """
    path = _first_created(names)
    try:
        yield path
    finally:
        with suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()


def _first_created(names: Iterable[Path]) -> Path:
    for path in names:
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error
    raise RequestError("output: none of the names is free")


def _sync(file: BinaryIO) -> None:
    """Wait until a file is on disk. Some file systems report a full disk only now."""
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _new_sibling(path: Path) -> Path:
    """Return an unused hidden name in the folder of `path`, of a length that every file system takes."""
    return path.with_name(f".acestep-{secrets.token_hex(8)}.partial")


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


def parse_json(text: str) -> Any:
    """Parse JSON. Raises ValueError, also for deeply nested values, long whole numbers and NaN.

    Code behind this function may print, compare and convert the values.
    """
    try:
        content = json.loads(text, parse_int=_parse_int, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    layer = [content]
    for _ in range(MAX_DEPTH):
        layer = [value for each in layer if isinstance(each, (list, dict)) for value in _values(each)]
        if not layer:
            return content
    raise ValueError(_TOO_DEEP)


def _values(content: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return content.values() if isinstance(content, dict) else content


def _parse_int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"a whole number has more than {MAX_DIGITS} digits: {digits[:MAX_DIGITS]}…")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def read_json_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file of a model. Raises CheckpointError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} should hold a JSON object, it holds {type(content).__name__}")
    return content


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file atomically. Raises RequestError."""
    path = Path(path)
    try:
        with atomic_write(path) as file:
            file.write(text.encode("utf-8"))
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error
