"""The planner's reasoning block: YAML with up to seven fields, written as in training and parsed leniently.

A `Block` maps field names to values. `bpm`, `duration` and `timesignature` are whole numbers, the others are text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import yaml

from ..config import MAX_SECONDS
from ..errors import RequestError
from ..song.languages import UNKNOWN
from ..song.song import MAX_BPM, MIN_BPM, TRAINED_MIN_SECONDS, Metadata, Song

Block = Mapping[str, "str | int"]

FIELDS = ("bpm", "caption", "duration", "genres", "keyscale", "language", "timesignature")  # the order of training
_METADATA_NAMES = {
    "bpm": "bpm",
    "duration": "duration",
    "keyscale": "key",
    "language": "language",
    "timesignature": "time_signature",
}
_FREE_TEXT = ("caption", "genres")
_RANGES = {"bpm": (MIN_BPM, MAX_BPM), "duration": (TRAINED_MIN_SECONDS, MAX_SECONDS)}
_MISSING = ("", "n/a")


# --- writing --------------------------------------------------------------------------------------------------------


def write_block(block: Block) -> str:
    """Return the block as in training: PyYAML's text, folded at 80 columns, without a last newline.

    An empty block is empty text.
    """
    items = {name: _scalar(value) for name, value in block.items()}
    return yaml.dump(items, allow_unicode=True, sort_keys=True).strip() if items else ""


def _scalar(value: str | int) -> str | int:
    """Return digits as a number, and other text as one line."""
    if isinstance(value, int):
        return value
    text = one_line(value)
    return int(text) if text.isascii() and text.isdigit() else text


def one_line(text: str) -> str:
    """Replace line ends with spaces. Other white space, such as the Chinese full-width space, stays."""
    return " ".join(text.splitlines()).strip()


def song_block(song: Song) -> dict[str, str | int]:
    """Return the block of the metadata that a song has. The caption is not part of the block."""
    return metadata_block(song.metadata, sung=bool(song.lyrics.strip()))


def metadata_block(metadata: Metadata, sung: bool = True) -> dict[str, str | int]:
    """Return the block of the metadata that is set. The language is included if the song is `sung`.

    The duration is in whole seconds and at least the shortest in training. `plan_codes` cuts the codes of
    shorter songs.
    """
    block: dict[str, str | int] = {}
    if metadata.bpm is not None:
        block["bpm"] = metadata.bpm
    if metadata.duration is not None:
        block["duration"] = max(TRAINED_MIN_SECONDS, int(metadata.duration))
    if metadata.key is not None:
        block["keyscale"] = metadata.key
    if sung and metadata.language is not None and metadata.language != UNKNOWN:
        block["language"] = metadata.language
    if metadata.time_signature is not None:
        block["timesignature"] = int(metadata.time_signature)
    return block


# --- reading --------------------------------------------------------------------------------------------------------


def read_block(text: str) -> dict[str, str | int]:
    """Return the known fields of a reasoning block. Missing, `N/A` and impossible values are left out.

    The planner does not always write valid YAML. Captions contain `: ` and ` #`, and `language: no` is Norwegian, not
    false. So lines are split here, and PyYAML decodes quoted values only.
    """
    block: dict[str, str | int] = {}
    for name, lines in _split(text).items():
        value = _checked(name, _text(name, lines))
        if value is not None:
            block[name] = value
    return block


def _split(text: str) -> dict[str, list[str]]:
    """Return the lines of each known field. Indented lines continue a field."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.split("\n"):
        if line.startswith("<"):
            continue
        name, colon, rest = line.partition(":")
        if colon and not line[:1].isspace():
            lines = [rest]
            if name.strip().lower() in FIELDS:
                found[name.strip().lower()] = lines
        else:
            lines.append(line)
    return found


def _text(name: str, lines: list[str]) -> str:
    if lines[0].lstrip().startswith(("'", '"')):
        text = _unquoted("\n".join([f"{name}:{lines[0]}", *lines[1:]]))
        if text is not None:
            return one_line(text)
    parts = [line.strip() for line in (lines if name in _FREE_TEXT else lines[:1])]
    return " ".join(part for part in parts if part)


def _unquoted(text: str) -> str | None:
    """Return a quoted scalar as YAML reads it, or None if the quotes are not closed properly."""
    try:
        (value,) = yaml.load(text, Loader=yaml.BaseLoader).values()
    # ValueError, OverflowError: a \U beyond Unicode; AttributeError: not a mapping.
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError, RecursionError):
        return None
    return value if isinstance(value, str) else None


def _checked(name: str, value: str) -> str | int | None:
    if value.lower() in _MISSING:
        return None
    if name in _FREE_TEXT:
        return value
    if name in _RANGES:
        low, high = _RANGES[name]
        number = re.match(r"\d{1,9}", value)
        if number is None:
            return None
        if name == "duration":
            return min(max(int(number[0]), low), high)
        return int(number[0]) if low <= int(number[0]) <= high else None
    try:
        parsed = getattr(block_metadata({name: value}), _METADATA_NAMES[name])
    except RequestError:
        return None
    if name == "keyscale":
        return value  # the planner's own spelling: `E♭ major` returns to its prompt unchanged
    return int(parsed) if name == "timesignature" else parsed


# --- block and song -------------------------------------------------------------------------------------------------


def block_metadata(block: Block) -> Metadata:
    """Return the fields of a block that are metadata of a song."""
    values: dict[str, Any] = {ours: block[theirs] for theirs, ours in _METADATA_NAMES.items() if theirs in block}
    return Metadata(**values)


def merge_metadata(given: Metadata, planned: Metadata) -> Metadata:
    """Fill the gaps in the user's metadata with the planner's. The language `unknown` counts as a gap."""
    values = {item.name: getattr(given, item.name) for item in fields(Metadata)}
    for name, value in values.items():
        if value is None or (name == "language" and value == UNKNOWN and planned.language is not None):
            values[name] = getattr(planned, name)
    return Metadata(**values)
