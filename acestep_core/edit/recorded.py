"""An edit of a recording as plain values: the recipe of an edited song, and what a command line asks for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path, PureWindowsPath
from typing import Any

from ..errors import RequestError, shown

TRACK_OPERATIONS = ("extract", "add", "complete")
OPERATIONS = ("repaint", "extend", "cover", *TRACK_OPERATIONS, "morph")


@dataclass(frozen=True)
class RecordedEdit:
    """An edit of an audio file. `Edit` and `Morph` hold its tensors and check the values.

    operation: one of OPERATIONS.
    source: name of the audio file, without a folder.
    sha256: hash of its bytes, in hexadecimal digits.
    where: parts to generate, such as "10-15, 40-", in seconds; of an extension the time to continue from.
    before, after, overlap: seconds to add, and to generate again at the seams.
    tracks: of extract, add and complete.
    source_caption, source_lyrics: description of the source of a morph.
    start, end, draws: as in `MorphSettings`. The others are as in `Edit`.

    Raises RequestError.
    """

    operation: str
    source: str
    sha256: str
    where: str = ""
    before: float = 0.0
    after: float = 0.0
    overlap: float = 0.0
    tracks: tuple[str, ...] = ()
    strength: float = 1.0
    blend: float = 0.0
    noise_strength: float = 0.0
    use_codes: bool = True
    mode: str = "balanced"
    mode_strength: float = 0.5
    source_caption: str = ""
    source_lyrics: str = ""
    start: float = 0.0
    end: float = 1.0
    draws: int = 1

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise RequestError(f"edit: unknown operation {shown(self.operation)}; allowed are {', '.join(OPERATIONS)}")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type == "str" and not isinstance(value, str):
                raise RequestError(f"edit: {item.name} must be text, got {shown(value)}")
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if item.type in ("float", "int") and not number:
                raise RequestError(f"edit: {item.name} must be a number, got {shown(value)}")
            if item.type == "bool" and not isinstance(value, bool):
                raise RequestError(f"edit: {item.name} must be true or false, got {shown(value)}")
        inside = PureWindowsPath(self.source)  # parses both kinds of slash, drives and network shares
        if len(inside.parts) != 1 or inside.anchor or inside.parts[0] == ".." or "\0" in self.source:
            raise RequestError(
                f"edit: the source must be the name of a file without a folder, got {shown(self.source)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the values that differ from their defaults, for JSON."""
        plain = asdict(self)
        changed = {item.name: plain[item.name] for item in fields(self) if plain[item.name] != item.default}
        return {**changed, **({"tracks": list(self.tracks)} if self.tracks else {})}

    @classmethod
    def from_dict(cls, values: object) -> RecordedEdit:
        """Read the result of `to_dict`. Unknown names are ignored. Raises RequestError."""
        if not isinstance(values, Mapping):
            raise RequestError(f"edit must be an object of names and values, got {shown(values)}")
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        missing = [item.name for item in fields(cls) if item.default is MISSING and item.name not in known]
        if missing:
            raise RequestError(f"edit: {missing[0]} is missing")
        tracks = known.get("tracks", ())
        if not isinstance(tracks, (list, tuple)) or not all(isinstance(track, str) for track in tracks):
            raise RequestError(f"edit: tracks must be a list of names, got {shown(tracks)}")
        return cls(**{**known, "tracks": tuple(tracks)})


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits. Raises RequestError."""
    digest = hashlib.sha256()
    try:
        if path.exists() and not path.is_file():  # a device may have no end
            raise RequestError(f"{path} cannot be read: it is not a file")
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
