"""Song and Metadata: the user's request, validated and normalised when an object is created.

`None` in Metadata means "auto". Both classes are frozen; `dataclasses.replace` makes a changed copy and validates it
again. Spelling does not affect equality: the keys "c♯ min" and "C# minor" are equal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from numbers import Real
from typing import TypeGuard

from ..config import MAX_SECONDS
from ..errors import RequestError
from .languages import UNKNOWN, language_code

MIN_BPM, MAX_BPM = 30, 300
TRAINED_MIN_SECONDS = 10  # shorter songs work, but were not in the training data
INSTRUMENTAL = "[Instrumental]"  # the trained lyrics of a song without vocals

# The prompt holds only the beats per bar (6 means 6/8), so no other time signature can be expressed.
TIME_SIGNATURES = {"2": "2", "3": "3", "4": "4", "6": "6", "2/4": "2", "3/4": "3", "4/4": "4", "6/8": "6"}

_KEY = re.compile(r"([a-g])[ -]?(#|♯|sharp|b|♭|flat)?[ -]?(major|maj|minor|min|m)", re.IGNORECASE | re.ASCII)
_ACCIDENTALS = {"#": "#", "♯": "#", "sharp": "#", "b": "b", "♭": "b", "flat": "b"}


@dataclass(frozen=True)
class Metadata:
    """Musical metadata of a song; `None` lets the model choose.

    bpm: tempo, a whole number from 30 to 300.
    key: a note A–G, optionally # or b (also ♯, ♭, sharp, flat), and major or minor; stored as e.g. "C# minor".
    time_signature: 2, 3, 4 or 6, also written 2/4, 3/4, 4/4, 6/8; stored as "2", "3", "4", "6".
    language: a code or English name of `song.languages.LANGUAGES`; stored as the code.
    duration: seconds, above 0 and at most 600.

    Raises RequestError for any other value.
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
    """A caption (style, instruments, voice), lyrics (text with tags like `[Verse]`), and metadata.

    Empty lyrics make an instrumental: `prompt_lyrics` is then `[Instrumental]` and `prompt_language` is `unknown`,
    whatever language is set. Explicit `[Instrumental]` lyrics keep their language. Line ends are stored as `\\n`.
    Raises RequestError for text that is not valid Unicode.
    """

    caption: str
    lyrics: str = ""
    metadata: Metadata = field(default_factory=Metadata)

    def __post_init__(self) -> None:
        object.__setattr__(self, "caption", check_text(self.caption, "caption"))
        object.__setattr__(self, "lyrics", check_text(self.lyrics, "lyrics"))
        if not isinstance(self.metadata, Metadata):
            raise RequestError(f"metadata must be a Metadata object, got {type(self.metadata).__name__}")

    @property
    def instrumental(self) -> bool:
        """True if the song has no vocals."""
        return self.lyrics.strip().lower() in ("", INSTRUMENTAL.lower())

    @property
    def prompt_lyrics(self) -> str:
        """The lyrics for the prompt, never empty."""
        return self.lyrics if self.lyrics.strip() else INSTRUMENTAL

    @property
    def prompt_language(self) -> str | None:
        """The language code for the prompt; None lets the model choose."""
        return self.metadata.language if self.lyrics.strip() else UNKNOWN

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user about values that are valid but may sound poor."""
        duration = self.metadata.duration
        if duration is not None and duration < TRAINED_MIN_SECONDS:
            return (
                f"a duration of {duration:g} s is shorter than any song in the training data "
                f"({TRAINED_MIN_SECONDS}–{MAX_SECONDS} s); the result may be poor",
            )
        return ()


def check_text(value: object, name: str) -> str:
    """Return a text with `\\n` line ends. Raises RequestError for another type or invalid Unicode."""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text, got {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{name} must be valid Unicode, got a lone surrogate {value[error.start]!r} at position {error.start}"
        ) from None
    return value.replace("\r\n", "\n").replace("\r", "\n")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_bpm(value: object) -> int:
    if not _is_number(value) or not MIN_BPM <= value <= MAX_BPM or value != int(value):
        raise RequestError(f"BPM must be a whole number from {MIN_BPM} to {MAX_BPM}, or None for auto, got {value!r}")
    return int(value)


def _check_duration(value: object) -> float:
    if not _is_number(value) or not 0 < value <= MAX_SECONDS:
        raise RequestError(
            f"duration must be above 0 and at most {MAX_SECONDS} seconds, or None for auto, got {value!r}"
        )
    return float(value)


def _check_key(value: object) -> str:
    match = _KEY.fullmatch(" ".join(value.split())) if isinstance(value, str) else None
    if match is None:
        raise RequestError(
            f"key: unknown key {value!r}; allowed are a note A–G, optionally # or b, and major or minor, such as "
            "'C# minor'"
        )
    note, accidental, mode = match.groups()
    # "M" is major and "m" minor; longer words differ in their second letter.
    major = mode == "M" or mode.lower().startswith("ma")
    return f"{note.upper()}{_ACCIDENTALS.get((accidental or '').lower(), '')} {'major' if major else 'minor'}"


def _check_time_signature(value: object) -> str:
    text = "".join(str(value).split()) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if text not in TIME_SIGNATURES:
        raise RequestError(
            f"time_signature: unknown time signature {value!r}; allowed are 2, 3, 4 and 6 (also written 2/4, 3/4, 4/4, "
            "6/8)"
        )
    return TIME_SIGNATURES[text]


def _check_language(value: object) -> str:
    if not isinstance(value, str):
        raise RequestError(f"language must be a code or name such as 'en', got {value!r}")
    return language_code(value)


_CHECKS = {
    "bpm": _check_bpm,
    "key": _check_key,
    "time_signature": _check_time_signature,
    "language": _check_language,
    "duration": _check_duration,
}
