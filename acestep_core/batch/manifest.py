"""The manifest of a batch: one line of JSON for each song file and for each row that failed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..files import parse_json, write_text

NAME = "manifest.jsonl"


class Manifest:
    """A file `manifest.jsonl` that grows by whole lines, so that a batch can continue after any end of the process.

    entries: the lines of the file, also of earlier runs.
    """

    def __init__(self, path: Path):
        self.path = path
        self.entries: list[dict[str, Any]] = read_manifest(path)

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop all other entries, and lines that a killed process left unfinished. Raises RequestError."""
        self.entries = [entry for entry in self.entries if wanted(entry)]
        write_text(self.path, "".join(_line(entry) for entry in self.entries))

    def add(self, entries: Iterable[dict[str, Any]]) -> None:
        """Append entries and wait until they are on disk. Raises RequestError."""
        entries = list(entries)
        content = "".join(_line(entry) for entry in entries).encode("utf-8")
        try:
            with open(self.path, "ab") as file:
                end = file.tell()
                try:
                    file.write(content)
                    file.flush()
                    with suppress(OSError):  # of file systems without fsync
                        os.fsync(file.fileno())
                except OSError:
                    with suppress(OSError):
                        os.truncate(self.path, end)
                    raise
        except OSError as error:
            raise RequestError(f"{self.path} cannot be written: {error.strerror or error}") from error
        self.entries += entries


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a manifest, without lines that are unfinished. Raises RequestError."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}") from error
    entries = []
    for line in text.split("\n"):
        with suppress(ValueError):
            entry = parse_json(line)
            if isinstance(entry, dict):
                entries.append(entry)
    return entries


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
