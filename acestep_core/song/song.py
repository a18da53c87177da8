"""What a user asks for: a Song and its Metadata, checked once, when they are made.

`None` in Metadata means "auto". Both classes are frozen; make a changed copy with `dataclasses.replace`, which checks
it again. Values are normalised on the way in, so equal requests compare equal: the key "c♯ min" is kept as "C# minor".

This module is cheap to import: no torch, no tokenizer.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from numbers import Real

from ..config import MAX_SECONDS
from ..errors import RequestError
from .languages import UNKNOWN, language_code

MIN_BPM, MAX_BPM = 30, 300
TRAINED_MIN_SECONDS = 10  # shorter songs work, but the model has not been trained on them
INSTRUMENTAL = "[Instrumental]"  # the trained lyrics of a song without singing

# The prompt holds beats per bar alone (6 stands for 6/8), so these spellings are all that can be told apart.
TIME_SIGNATURES: dict[str, str] = {
    "2": "2",
    "3": "3",
    "4": "4",
    "6": "6",
    "2/4": "2",
    "3/4": "3",
    "4/4": "4",
    "6/8": "6",
}

_KEY = re.compile(r"([a-g])[ -]?(#|♯|sharp|b|♭|flat)?[ -]?(major|maj|minor|min|m)", re.IGNORECASE | re.ASCII)
_ACCIDENTALS = {"#": "#", "♯": "#", "sharp": "#", "b": "b", "♭": "b", "flat": "b"}


@dataclass(frozen=True)
class Metadata:
    """Musical facts of the song; `None` lets the model choose.

    bpm: whole number, 30–300.
    key: a note A–G, optionally # or b (♯ ♭ and words too), and major or minor; kept as e.g. "C# minor".
    time_signature: 2, 3, 4 or 6, also written 2/4, 3/4, 4/4, 6/8; kept as "2", "3", "4", "6".
    language: a code or English name of `text.languages.LANGUAGES`; kept as the code.
    duration: seconds, more than 0 and up to 600.

    Raises RequestError for anything else.
    """

    bpm: int | None = None
    key: str | None = None
    time_signature: str | None = None
    language: str | None = None
    duration: float | None = None

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check(value))


@dataclass(frozen=True)
class Song:
    """A caption (how it sounds), lyrics (what is sung, with tags like `[Verse]`), and metadata.

    Empty lyrics ask for an instrumental: `sung_lyrics` is then `[Instrumental]` and `sung_language` is `unknown`,
    whatever language was set. Lyrics that say `[Instrumental]` themselves are taken as they are, language included.
    Line ends are kept as `\\n`. Raises RequestError for text that is not valid Unicode.
    """

    caption: str
    lyrics: str = ""
    metadata: Metadata = field(default_factory=Metadata)

    def __post_init__(self) -> None:
        object.__setattr__(self, "caption", _check_text(self.caption, "caption"))
        object.__setattr__(self, "lyrics", _check_text(self.lyrics, "lyrics"))
        if not isinstance(self.metadata, Metadata):
            raise RequestError(f"metadata must be a Metadata, got {type(self.metadata).__name__}")

    @property
    def instrumental(self) -> bool:
        """True when nothing is to be sung."""
        return self.lyrics.strip().lower() in ("", INSTRUMENTAL.lower())

    @property
    def sung_lyrics(self) -> str:
        """The lyrics as the prompt wants them: never empty."""
        return self.lyrics if self.lyrics.strip() else INSTRUMENTAL

    @property
    def sung_language(self) -> str | None:
        """The language code for the prompt; None when it was left to the model."""
        return self.metadata.language if self.lyrics.strip() else UNKNOWN

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but may disappoint, as sentences for the user."""
        duration = self.metadata.duration
        if duration is not None and duration < TRAINED_MIN_SECONDS:
            return (
                f"a duration of {duration:g} s is shorter than any song the model was trained on "
                f"({TRAINED_MIN_SECONDS}–{MAX_SECONDS} s); the result may be poor",
            )
        return ()


def _check_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text, got {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"the {name} holds half a character (a lone surrogate, {value[error.start]!r}) at position {error.start}; "
            "it must be valid Unicode"
        ) from None
    return value.replace("\r\n", "\n").replace("\r", "\n")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_bpm(value: object) -> int:
    if not _is_number(value) or not MIN_BPM <= value <= MAX_BPM or value != int(value):
        raise RequestError(f"BPM must be a whole number from {MIN_BPM} to {MAX_BPM}, or None for auto, got {value!r}")
    return int(value)


def _check_duration(value: object) -> float:
    if not _is_number(value) or not math.isfinite(value) or not 0 < value <= MAX_SECONDS:
        raise RequestError(
            f"duration must be more than 0 and at most {MAX_SECONDS} seconds, or None for auto, got {value!r}"
        )
    return float(value)


def _check_key(value: object) -> str:
    match = _KEY.fullmatch(" ".join(value.split())) if isinstance(value, str) else None
    if match is None:
        raise RequestError(
            f"unknown key {value!r}: write a note A–G, optionally # or b, and major or minor, such as 'C# minor'"
        )
    note, accidental, mode = match.groups()
    # One letter "M" is major and "m" minor; the longer words are told apart by their second letter.
    major = mode == "M" or mode.lower().startswith("ma")
    return f"{note.upper()}{_ACCIDENTALS.get((accidental or '').lower(), '')} {'major' if major else 'minor'}"


def _check_time_signature(value: object) -> str:
    text = "".join(str(value).split()) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if text not in TIME_SIGNATURES:
        raise RequestError(
            f"unknown time signature {value!r}: allowed are 2, 3, 4 and 6 (also written 2/4, 3/4, 4/4, 6/8)"
        )
    return TIME_SIGNATURES[text]


def _check_language(value: object) -> str:
    if not isinstance(value, str):
        raise RequestError(f"language must be a code such as 'en', got {value!r}")
    return language_code(value)


_CHECKS = {
    "bpm": _check_bpm,
    "key": _check_key,
    "time_signature": _check_time_signature,
    "language": _check_language,
    "duration": _check_duration,
}
