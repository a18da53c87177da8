"""Songs to train on: a folder of audio files with text beside them.

`song.flac` may have `song.txt` (caption), `song.lyrics.txt` or `song.lrc` (lyrics) and `song.json` (all fields of
FIELDS). A text file takes precedence over the JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import RequestError, shown
from ..files import parse_json, read_text
from ..lyrics.formats import parse_times
from ..song.song import Metadata, Song, check_text

AUDIO = (
    ".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".m4a", ".aac", ".wma", ".mp4",
)  # fmt: skip
CAPTION, LYRICS, LRC, JSON = ".txt", ".lyrics.txt", ".lrc", ".json"
# Fields of `song.json`, with the names that the original trainer gives them.
FIELDS = ("caption", "lyrics", "genre", "bpm", "key", "time_signature", "language", "trigger", "use_genre")
_ALIASES = {
    "keyscale": "key",
    "timesignature": "time_signature",
    "custom_tag": "trigger",
    "genres": "genre",
    "is_instrumental": "instrumental",
}
_IGNORED = (
    "instrumental", "duration", "labeled", "labelled", "measured", "format", "codes", "codes_per_second", "seed",
    "score", "id", "audio_path", "filename", "raw_lyrics", "formatted_lyrics", "prompt_override", "title",
)  # fmt: skip
_UNSET = ("", "n/a", "none", "unknown", "auto")
_METADATA = ("bpm", "key", "time_signature", "language")
PLACES = ("prepend", "append", "replace")


@dataclass(frozen=True)
class Problem:
    """A problem of a dataset, as one sentence.

    path: the file or folder.
    left_out: True if the song is not trained on.
    """

    path: Path
    sentence: str
    left_out: bool = False

    def __str__(self) -> str:
        return f"{self.sentence}{'; left out' if self.left_out else ''}"


@dataclass(frozen=True)
class Example:
    """A song to train on.

    path: of the audio file.
    song: caption, lyrics and metadata. The duration is set when the audio is encoded.
    genre: a few words that may replace the caption.
    trigger: a word of this song, instead of the dataset's.
    use_genre: True or False for this song, instead of the dataset's share.
    sources: the file of each field that is given.
    """

    path: Path
    song: Song
    genre: str = ""
    trigger: str = ""
    use_genre: bool | None = None
    sources: Mapping[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class Dataset:
    """Songs to train on.

    path: the folder, or the JSON file of the original trainer.
    trigger: a word that each caption contains, so that a caption can ask for the style.
    place: where the word is: "prepend", "append" or "replace".
    genre_ratio: percent of the songs whose genre replaces the caption.
    problems: of the text files. `check_dataset` finds those of the audio.

    Raises RequestError.
    """

    path: Path
    examples: tuple[Example, ...]
    trigger: str = ""
    place: str = "prepend"
    genre_ratio: float = 0.0
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "trigger", " ".join(check_text(self.trigger, "trigger").split()))
        if self.place not in PLACES:
            raise RequestError(f"trigger position {shown(self.place)} is unknown; choose {', '.join(PLACES)}")
        ratio = self.genre_ratio
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio <= 100:
            raise RequestError(f"genre_ratio must be a percentage from 0 to 100, got {shown(ratio)}")

    @property
    def name(self) -> str:
        return self.path.stem if self.path.suffix.lower() == JSON else self.path.name

    @property
    def triggers(self) -> tuple[str, ...]:
        """The different trigger words of the songs."""
        words = (each.trigger or self.trigger for each in self.examples)
        return tuple(dict.fromkeys(word for word in words if word))

    def songs(self) -> list[Song]:
        """Return each song with the caption to train on: with the trigger word, or with the genre."""
        by_genre = self._with_genre()
        return [replace(each.song, caption=self._caption(each, each.path in by_genre)) for each in self.examples]

    def _caption(self, example: Example, use_genre: bool) -> str:
        text, trigger = example.genre if use_genre else example.song.caption.strip(), example.trigger or self.trigger
        if not trigger or not text or self.place == "replace":
            return trigger or text
        return f"{trigger}, {text}" if self.place == "prepend" else f"{text}, {trigger}"

    def _with_genre(self) -> set[Path]:
        """Return the songs whose genre replaces the caption, spread evenly over those that have one."""
        open_songs = [each.path for each in self.examples if each.genre and each.use_genre is None]
        share = self.genre_ratio / 100
        spread = {path for i, path in enumerate(open_songs) if int((i + 1) * share) > int(i * share)}
        return spread | {each.path for each in self.examples if each.genre and each.use_genre}


def read_example(path: Path) -> tuple[Example | None, list[Problem]]:
    """Read the text files of a song. Without a readable text, the song is None."""
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    sources: dict[str, Path] = {}
    try:
        for file, read in _readers(path):
            if not file.is_file():
                continue
            given = read(file, problems)
            values |= given
            sources |= {name: file for name in given}
    except RequestError as error:
        return None, [*problems, Problem(path, str(error), left_out=True)]
    return _example(path, values, sources), problems


def _readers(path: Path) -> Sequence[tuple[Path, Callable[[Path, list[Problem]], dict[str, Any]]]]:
    """Return the text files of a song and their readers. A later file takes precedence."""

    def text(name: str) -> Callable[[Path, list[Problem]], dict[str, Any]]:
        return lambda file, _: {name: read_text(file, f"{name} file").strip()}

    def lrc(file: Path, _: list[Problem]) -> dict[str, Any]:
        content = read_text(file, "lyrics file")
        try:
            return {"lyrics": "\n".join(line.text for line in parse_times(content).lines)}
        except RequestError as error:
            raise RequestError(f"{file}: {error}") from error

    return [
        (path.with_suffix(JSON), _read_json),
        (path.with_suffix(LRC), lrc),
        (path.with_suffix(LYRICS), text("lyrics")),
        (path.with_suffix(CAPTION), text("caption")),
    ]


def _read_json(file: Path, problems: list[Problem]) -> dict[str, Any]:
    return checked_fields(read_object(file), file, problems)


def read_object(file: Path) -> dict[str, Any]:
    """Read the JSON object of a file. Raises RequestError."""
    try:
        content = parse_json(read_text(file, "song file"))
    except ValueError as error:
        raise error if isinstance(error, RequestError) else RequestError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{file} should hold a JSON object, it holds {type(content).__name__}")
    return content


def checked_fields(content: Mapping[str, Any], file: Path, problems: list[Problem]) -> dict[str, Any]:
    """Return the valid fields of FIELDS, and add a sentence for each invalid or unknown one."""
    values: dict[str, Any] = {}
    for given, value in content.items():
        name = canonical_name(given)
        if name not in FIELDS:
            if name not in _IGNORED:
                problems.append(Problem(file, f"{file}: unknown field {shown(given)} is ignored"))
            continue
        if value is None or (isinstance(value, str) and value.strip().lower() in _UNSET and name != "lyrics"):
            continue
        try:
            values[name] = _checked(name, value)
        except RequestError as error:
            problems.append(Problem(file, f"{file}: {error}; the field is ignored"))
    if content.get("prompt_override") in ("caption", "genre"):
        values["use_genre"] = content["prompt_override"] == "genre"
    if content.get("is_instrumental") is True:
        values["lyrics"] = ""
    return values


def canonical_name(name: str) -> str:
    """Return the name in FIELDS of a field with a name of the original trainer."""
    return _ALIASES.get(name, name)


def _checked(name: str, value: object) -> Any:
    if name in _METADATA:
        if name == "bpm" and isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if name == "bpm" and isinstance(value, float) and math.isfinite(value):
            value = round(value)
        return getattr(Metadata(**{name: value}), name)  # type: ignore[arg-type]
    if name == "use_genre":
        if not isinstance(value, bool):
            raise RequestError(f"use_genre must be true or false, got {shown(value)}")
        return value
    return check_text(value, name).strip()


def _example(path: Path, values: Mapping[str, Any], sources: Mapping[str, Path]) -> Example:
    metadata = Metadata(**{name: values[name] for name in _METADATA if name in values})
    song = Song(values.get("caption", ""), values.get("lyrics", ""), metadata)
    others = {name: values[name] for name in ("genre", "trigger", "use_genre") if name in values}
    return Example(path, song, sources=sources, **others)


def example_of(path: Path, values: Mapping[str, Any], source: Path) -> Example:
    """Return the song of checked fields that all come from one file."""
    return _example(path, values, {name: source for name in values})
