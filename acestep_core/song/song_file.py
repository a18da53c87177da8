"""Songs as files: what one says, how its structure goes and where that came from, in JSON that every command and every
node reads.

One song is one object: `caption`, `lyrics` and its facts by their names in Metadata, with `genres`, `codes`, `seed` and
`score` beside them; all may be missing. A file holds one song, or several as `{"songs": [...]}`; or it is a text with
one line of audio codes a song.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..files import read_text, write_text
from .codes import CODE_COUNT, CODE_RATE, Codes, check_codes, format_codes, parse_codes, parse_songs, seconds_of
from .song import Metadata, Song

FORMAT = "acestep-audio-codes"
METADATA_FIELDS = tuple(item.name for item in fields(Metadata))
NAMES = ("caption", "lyrics", *METADATA_FIELDS, "genres", "codes", "seed", "score")
_AROUND = ("format", "codes_per_second", "songs")


@dataclass(frozen=True)
class SavedSong:
    """A song and what is known of its making.

    song: Song("") where only the codes are known. genres: a few words of style by the planner. seed: of the planner.
    score: how well the codes fit, where they were chosen among several.
    """

    song: Song = field(default_factory=lambda: Song(""))
    codes: Codes = ()
    genres: str = ""
    seed: int | None = None
    score: float | None = None

    @property
    def timed_song(self) -> Song:
        return replace(self.song, metadata=replace(self.song.metadata, duration=seconds_of(self.codes) or None))

    def to_dict(self) -> dict[str, Any]:
        """Flat, ready for JSON. What is not known is left out."""
        words = {} if self.song == Song("") else {"caption": self.song.caption, "lyrics": self.song.lyrics}
        values = {
            **words,
            **asdict(self.song.metadata),
            "genres": self.genres or None,
            "codes": format_codes(self.codes) or None,
            "seed": self.seed,
            "score": self.score,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], count: int = CODE_COUNT) -> SavedSong:
        """The inverse of `to_dict`. Raises RequestError for values that cannot be and for names that say nothing."""
        unknown = next((name for name in values if name not in NAMES), None)
        if unknown is not None:
            raise RequestError(f"{unknown!r} is nothing that a song has; it has {', '.join(NAMES)}")
        known = {name: value for name, value in values.items() if value is not None}
        metadata = Metadata(**{name: known[name] for name in METADATA_FIELDS if name in known})
        genres, seed, score = known.get("genres", ""), known.get("seed"), known.get("score")
        if not isinstance(genres, str):
            raise RequestError(f"genres must be text, got {genres!r:.40}")
        for name, value, kind in (("seed", seed, int), ("score", score, Real)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
                raise RequestError(f"{name} must be a number, got {value!r:.40}")
        return cls(
            Song(known.get("caption", ""), known.get("lyrics", ""), metadata),
            _codes(known.get("codes", ()), count),
            genres,
            seed,
            score,
        )


def _codes(given: object, count: int) -> Codes:
    if isinstance(given, str):
        return parse_codes(given, count)
    if not isinstance(given, (list, tuple)):
        raise RequestError(f"codes should be text or a list of numbers, they are {given!r:.40}")
    return check_codes(given, count)


def to_json(songs: Sequence[SavedSong]) -> str:
    """One song as it is, several in a list."""
    return _json(songs[0].to_dict()) if len(songs) == 1 else _list(songs)


def save_songs(path: str | Path, songs: Sequence[SavedSong]) -> None:
    """Writes a list of songs, replacing the file when all is written."""
    write_text(path, _list(songs))


def _list(songs: Sequence[SavedSong]) -> str:
    return _json({"format": FORMAT, "codes_per_second": CODE_RATE, "songs": [song.to_dict() for song in songs]})


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def load_songs(path: str | Path, count: int = CODE_COUNT) -> tuple[SavedSong, ...]:
    """The songs of a file, `-` for standard input. `count` is how many audio codes the model knows.

    Raises RequestError for a file that holds none, and for what no song can have, by its name.
    """
    text = read_text(path, "song file")
    if not text.lstrip().startswith("{"):
        return tuple(SavedSong(codes=codes) for codes in _named(path, parse_songs, text, count))
    try:
        content = json.loads(text)
    except ValueError as error:
        raise RequestError(f"{path} is no song in JSON: {error}") from error
    if "songs" not in content:
        return (_named(path, SavedSong.from_dict, content, count),)
    songs = content["songs"]
    if content.get("format", FORMAT) != FORMAT or not isinstance(songs, list) or {*content} - {*_AROUND}:
        raise RequestError(f"{path} holds no songs: it was not written by acestep, or it is damaged")
    if not all(isinstance(song, dict) for song in songs):
        raise RequestError(f"{path}: every song should be an object with a caption or codes")
    return tuple(_named(path, SavedSong.from_dict, song, count) for song in songs)


def load_codes(path: str | Path, count: int = CODE_COUNT) -> tuple[SavedSong, ...]:
    """The songs of a file, each of which has audio codes."""
    songs = load_songs(path, count)
    if not songs or not all(song.codes for song in songs):
        raise RequestError(f"{path} holds no audio codes; Plan Song and `acestep plan` write some")
    return songs


def _named(path: str | Path, read: Any, *given: Any) -> Any:
    """What `read` makes of it, or its complaint with the name of the file."""
    try:
        return read(*given)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error
