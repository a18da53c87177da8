"""The planner's reasoning block: YAML of up to seven fields, written as in training and read leniently.

A block is a mapping from field names to values: `bpm`, `duration` and `timesignature` are whole numbers, the rest text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields

import yaml

from ..config import MAX_SECONDS
from ..errors import RequestError
from ..song.languages import UNKNOWN
from ..song.song import MAX_BPM, MIN_BPM, TRAINED_MIN_SECONDS, Metadata, Song

Block = Mapping[str, "str | int"]

# In the order of training, which is also the alphabet's.
FIELDS = ("bpm", "caption", "duration", "genres", "keyscale", "language", "timesignature")
# Our names of the fields that are facts of a song.
_FACTS = {"bpm": "bpm", "keyscale": "key", "timesignature": "time_signature", "language": "language"}
_FREE = ("caption", "genres")
_RANGES = {"bpm": (MIN_BPM, MAX_BPM), "duration": (TRAINED_MIN_SECONDS, MAX_SECONDS)}
_MISSING = ("", "n/a")


# --- writing --------------------------------------------------------------------------------------------------------


def write_block(block: Block) -> str:
    """The YAML of training: PyYAML's, folded at 80 columns, without a last newline. Nothing for an empty block."""
    items = {name: _plain(value) for name, value in block.items()}
    return yaml.dump(items, allow_unicode=True, sort_keys=True).strip() if items else ""


def _plain(value: str | int) -> str | int:
    """A number where the text is one; else one line of it."""
    if isinstance(value, int):
        return value
    text = one_line(value)
    return int(text) if text.isascii() and text.isdigit() else text


def one_line(text: str) -> str:
    """Line ends become blanks. Other blanks, of which Chinese has its own, are words of the text and stay."""
    return " ".join(text.splitlines()).strip()


def given_block(song: Song) -> dict[str, str | int]:
    """What the user said of the song's facts; the caption is not among them."""
    return facts_block(song.metadata, sung=bool(song.lyrics.strip()))


def facts_block(meta: Metadata, sung: bool = True) -> dict[str, str | int]:
    """Facts by the planner's names; the language only where something is sung.

    A duration is told in whole seconds, and never as shorter than any in training: short songs are cut from longer.
    """
    block: dict[str, str | int] = {}
    if meta.bpm is not None:
        block["bpm"] = meta.bpm
    if meta.duration is not None:
        block["duration"] = max(TRAINED_MIN_SECONDS, int(meta.duration))
    if meta.key is not None:
        block["keyscale"] = meta.key
    if sung and meta.language not in (None, UNKNOWN):
        block["language"] = meta.language
    if meta.time_signature is not None:
        block["timesignature"] = int(meta.time_signature)
    return block


# --- reading --------------------------------------------------------------------------------------------------------


def read_block(text: str) -> dict[str, str | int]:
    """The known fields of a reasoning block, checked: what is missing, `N/A` or impossible is left out.

    The planner need not write valid YAML (a caption may hold `: ` and ` #`, `language: no` is Norwegian and not false),
    so lines are read as lines, and YAML only decides what a quoted value means.
    """
    block: dict[str, str | int] = {}
    for name, lines in _split(text).items():
        value = _checked(name, _value(name, lines))
        if value is not None:
            block[name] = value
    return block


def _split(text: str) -> dict[str, list[str]]:
    """The lines of each known field; a field goes on in the lines that are indented."""
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


def _value(name: str, lines: list[str]) -> str:
    if lines[0].lstrip().startswith(("'", '"')):
        text = _unquoted("\n".join([f"{name}:{lines[0]}", *lines[1:]]))
        if text is not None:
            return one_line(text)
    words = [line.strip() for line in (lines if name in _FREE else lines[:1])]
    return " ".join(word for word in words if word)


def _unquoted(text: str) -> str | None:
    """A quoted scalar as YAML understands it; None when it is not closed properly."""
    try:
        (value,) = yaml.load(text, Loader=yaml.BaseLoader).values()
    # ValueError, OverflowError: a \\U beyond Unicode; AttributeError: no mapping at all.
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError, RecursionError):
        return None
    return value if isinstance(value, str) else None


def _checked(name: str, value: str) -> str | int | None:
    if value.lower() in _MISSING:
        return None
    if name in _FREE:
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
        fact = getattr(Metadata(**{_FACTS[name]: value}), _FACTS[name])
    except RequestError:
        return None
    # As the planner spelled it: `E♭ major` goes back into its prompt as it came.
    return int(fact) if name == "timesignature" else fact if name == "language" else value


# --- block and song -------------------------------------------------------------------------------------------------


def facts_of(block: Block) -> Metadata:
    """The facts of a block as metadata."""
    values = {ours: block[theirs] for theirs, ours in _FACTS.items() if theirs in block}
    return Metadata(duration=block.get("duration"), **values)


def merge_facts(given: Metadata, planned: Metadata) -> Metadata:
    """What the user said, and the planner's word for the rest. An `unknown` language counts as not said."""
    values = {item.name: getattr(given, item.name) for item in fields(Metadata)}
    for name, value in values.items():
        if value is None or (name == "language" and value == UNKNOWN and planned.language is not None):
            values[name] = getattr(planned, name)
    return Metadata(**values)
