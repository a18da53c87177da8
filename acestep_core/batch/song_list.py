"""Read a list of songs: a JSONL file, a CSV file, or a folder of song files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RequestError, shown
from ..files import parse_json, read_text
from ..song.song_file import load_songs

SUFFIXES = (".json", ".txt")  # of song files
DELIMITERS = ",;\t"  # of CSV; programs of some countries write semicolons


@dataclass(frozen=True)
class ListedSong:
    """A song of a list, not checked yet.

    number: its place in the list, from 1.
    place: the file and line, for messages.
    fields: options by name. `plan` may hold an object of options.
    name: name of its file without a suffix, or empty.
    error: a sentence if the line cannot be read.
    """

    number: int
    place: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    error: str = ""


def read_song_list(path: str | Path) -> list[ListedSong]:
    """Read a list of songs. A bad line becomes a song with an `error`. Raises RequestError for a bad file."""
    source = Path(path)
    if source.is_dir():
        songs = list(_read_folder(source))
        if not songs:
            raise RequestError(f"{path} has no song files; allowed are {' and '.join(SUFFIXES)} files")
        return songs
    text = read_text(path, "song list")
    songs = list(_read_csv(source, text) if source.suffix.lower() in (".csv", ".tsv") else _read_jsonl(source, text))
    if not songs:
        raise RequestError(f"{path} has no songs: it is empty")
    return songs


def _read_jsonl(path: Path, text: str) -> Iterator[ListedSong]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for count, (number, line) in enumerate(lines, 1):
        place = f"{path.name}, line {number}"
        try:
            content = parse_json(line)
        except ValueError as error:
            yield ListedSong(count, place, error=f"{place}: not valid JSON: {error}")
            continue
        if isinstance(content, dict):
            yield ListedSong(count, place, content)
        else:
            yield ListedSong(count, place, error=f"{place}: must be an object of fields, got {shown(content)}")


def _read_csv(path: Path, text: str) -> Iterator[ListedSong]:
    """Yield the rows of a table. An empty cell is a field that is not given; `plan.seed` is the field of an object."""
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=first.count))
    try:
        header = [name.strip() for name in next(reader, [])]
        count = 0
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            count += 1
            place = f"{path.name}, line {reader.line_num}"
            if len(cells) > len(header):
                error = f"{place}: has {len(cells)} cells, but the header names {len(header)} columns"
                yield ListedSong(count, place, error=error)
                continue
            yield ListedSong(count, place, _nested(dict(zip(header, cells, strict=False))))
    except csv.Error as error:
        raise RequestError(f"{path} cannot be read as CSV: {error}") from error


def _nested(cells: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, cell in cells.items():
        group, dot, inner = name.partition(".")
        if not cell.strip():
            continue
        if not dot:
            fields.setdefault(name, cell)
            continue
        if not isinstance(fields.get(group), dict):
            fields[group] = {}
        fields[group][inner] = cell
    return fields


def _read_folder(folder: Path) -> Iterator[ListedSong]:
    count = 0
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()):
        try:
            songs = load_songs(path)
        except RequestError as error:
            count += 1
            yield ListedSong(count, path.name, name=path.stem, error=str(error))
            continue
        for number, song in enumerate(songs, 1):
            count += 1
            several = f"-{number}" if len(songs) > 1 else ""
            yield ListedSong(count, f"{path.name}{several}", song.to_dict(), path.stem + several)
