"""Data types of a composed piece: notes, sections, the request and the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from acestep_core.config import FRAME_RATE

from .styles import TEMPI


class Note(NamedTuple):
    """One event. `pitch` is a MIDI number, or for drums the index into `styles.DRUMS`."""

    start: float  # seconds
    seconds: float
    pitch: int
    velocity: float  # 0..1
    part: str  # drums, bass, chords, pad, melody or voice
    vowel: str = ""
    consonant: str = ""  # before the vowel: "s" hisses, "t" is a stop
    places: tuple[int, ...] = ()  # of its syllable in the lyrics: the first and the last, which is excluded


@dataclass(frozen=True)
class Constraints:
    """Constraints on a piece. The composer chooses every field that is None."""

    style: str | None = None
    bpm: int | None = None
    tonic: str | None = None
    mode: str | None = None
    meter: int | None = None
    seconds: int | None = None
    solo: str | None = None  # an instrument name, or "" for no solo
    sung: bool | None = None


@dataclass(frozen=True)
class Section:
    tag: str  # "Intro", "Verse", ...
    bar: int  # the first bar
    bars: int
    parts: frozenset[str]
    progression: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """A composed piece. `meter` is 3, 4 or 6 (6/8, whose beat is the dotted quarter)."""

    seed: int
    style: str
    bpm: int
    tonic: str
    mode: str
    meter: int
    seconds: int
    instruments: dict[str, str]  # part -> instrument; "drums" is a key only if the piece has drums
    sections: tuple[Section, ...]
    solo: bool
    caption: str = ""
    lyrics: str = ""
    language: str = "unknown"
    notes: tuple[Note, ...] = field(default=(), repr=False)

    @property
    def beat_seconds(self) -> float:
        """The exact length of a beat (`bpm` is rounded)."""
        return TEMPI[self.bpm] / FRAME_RATE if self.bpm in TEMPI else 60 / self.bpm

    @property
    def key(self) -> str:
        return f"{self.tonic} {self.mode}"
