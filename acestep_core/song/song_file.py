"""Song files: songs, their audio codes and the planner's seed and score, as JSON that every command and node reads.

One song is one object. Its fields are `caption`, `lyrics`, the fields of Metadata, `genres`, `codes`, `seed` and
`score`; each may be missing. A file holds one song, or several as `{"songs": [...]}`. A plain text file holds the codes
of one song per line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from ..config import CODE_COUNT
from ..errors import RequestError
from ..files import parse_json, read_text, write_text
from .codes import CODE_RATE, Codes, check_codes, format_codes, parse_code_lines, parse_codes, seconds_of
from .song import Metadata, Song, check_text

FORMAT = "acestep-audio-codes"
METADATA_FIELDS = tuple(item.name for item in fields(Metadata))
FIELDS = ("caption", "lyrics", *METADATA_FIELDS, "genres", "codes", "seed", "score")
_LIST_FIELDS = ("format", "codes_per_second", "songs")

T = TypeVar("T")


@dataclass(frozen=True)
class SavedSong:
    """A song with the planner's results.

    song: `Song("")` if the file has only codes.
    genres: a few words of style from the planner.
    seed: seed of the planner.
    score: score of the codes, if the planner selected them by score.
    """

    song: Song = field(default_factory=lambda: Song(""))
    codes: Codes = ()
    genres: str = ""
    seed: int | None = None
    score: float | None = None

    @property
    def timed_song(self) -> Song:
        """The song with the duration of its codes."""
        return replace(self.song, metadata=replace(self.song.metadata, duration=seconds_of(self.codes) or None))

    def to_dict(self) -> dict[str, Any]:
        """Return a flat dict for JSON, without unknown values."""
        text = {} if self.song == Song("") else {"caption": self.song.caption, "lyrics": self.song.lyrics}
        values = {
            **text,
            **asdict(self.song.metadata),
            "genres": self.genres or None,
            "codes": format_codes(self.codes) or None,
            "seed": self.seed,
            "score": self.score,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], count: int = CODE_COUNT) -> SavedSong:
        """Invert `to_dict`. `count` is the codebook size. Raises RequestError for unknown fields and invalid values."""
        unknown = next((name for name in values if name not in FIELDS), None)
        if unknown is not None:
            raise RequestError(f"unknown field {unknown!r}; known fields are {', '.join(FIELDS)}")
        known = {name: value for name, value in values.items() if value is not None}
        metadata = Metadata(**{name: known[name] for name in METADATA_FIELDS if name in known})
        genres, seed, score = known.get("genres", ""), known.get("seed"), known.get("score")
        for name, value, kind in (("seed", seed, int), ("score", score, Real)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
                raise RequestError(f"{name} must be a number, got {value!r:.40}")
        return cls(
            Song(known.get("caption", ""), known.get("lyrics", ""), metadata),
            _codes(known.get("codes", ()), count),
            check_text(genres, "genres"),
            seed,
            score,
        )


def _codes(value: object, count: int) -> Codes:
    if isinstance(value, str):
        return parse_codes(value, count)
    if not isinstance(value, (list, tuple)):
        raise RequestError(f"codes must be text or a list of numbers, got {value!r:.40}")
    return check_codes(value, count)


def to_json(songs: Sequence[SavedSong]) -> str:
    """Return one song as its own object, several as a list."""
    return _json(songs[0].to_dict()) if len(songs) == 1 else _list(songs)


def save_songs(path: str | Path, songs: Sequence[SavedSong]) -> None:
    """Write a list of songs atomically. Raises RequestError."""
    write_text(path, _list(songs))


def _list(songs: Sequence[SavedSong]) -> str:
    return _json({"format": FORMAT, "codes_per_second": CODE_RATE, "songs": [song.to_dict() for song in songs]})


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def load_songs(path: str | Path, count: int = CODE_COUNT) -> tuple[SavedSong, ...]:
    """Read the songs of a file, or of standard input if `path` is "-". `count` is the codebook size of the model.

    Raises RequestError, with the path, for other files, unknown fields and invalid values.
    """
    text = read_text(path, "song file")
    if not text.lstrip().startswith("{"):
        return tuple(SavedSong(codes=codes) for codes in _with_path(path, parse_code_lines, text, count))
    try:
        content = parse_json(text)
    except ValueError as error:
        raise RequestError(f"{path} is not valid JSON: {error}") from error
    if "songs" not in content:
        return (_with_path(path, SavedSong.from_dict, content, count),)
    songs = content["songs"]
    if content.get("format", FORMAT) != FORMAT or not isinstance(songs, list) or {*content} - {*_LIST_FIELDS}:
        raise RequestError(f"{path} is not a song file: acestep did not write it, or it is damaged")
    if not all(isinstance(song, dict) for song in songs):
        raise RequestError(f"{path}: every song must be an object with a caption or codes")
    return tuple(_with_path(path, SavedSong.from_dict, song, count) for song in songs)


def load_codes(path: str | Path, count: int = CODE_COUNT) -> tuple[SavedSong, ...]:
    """Read the songs of a file like `load_songs`. Raises RequestError if one of them has no audio codes."""
    songs = load_songs(path, count)
    if not songs or not all(song.codes for song in songs):
        raise RequestError(f"{path} has no audio codes; Plan Song and `acestep plan` write some")
    return songs


def _with_path(path: str | Path, parse: Callable[..., T], *arguments: Any) -> T:
    """Call `parse` and add the path to its errors."""
    try:
        return parse(*arguments)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error
