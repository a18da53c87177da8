"""Composes small pieces of music: chords, bass, melody, drums, sections. Deterministic by seed, no audio involved.

`compose(seed)` chooses everything by itself; a `Wish` fixes what the caller cares about. The result carries what a
training example needs: caption, metadata, structured lyrics and the notes that `training.synth` turns into sound.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from acestep_core.config import FRAME_RATE

from . import words
from .styles import (
    BASS_LINES,
    BEATS,
    CHORUS_PROGRESSIONS,
    COMPING,
    DRUMS,
    GROOVES,
    PROGRESSIONS,
    SCALES,
    SOLO_INSTRUMENTS,
    STEPS,
    STEPS_PER_BEAT,
    STYLES,
    TEMPI,
    TONICS,
    Style,
    nearest_tempo,
)


class Note(NamedTuple):
    """One event. `pitch` is a MIDI number; for drums the index into `styles.DRUMS`."""

    start: float  # seconds
    seconds: float
    pitch: int
    velocity: float  # 0..1
    part: str  # drums, bass, chords, pad, melody or voice
    vowel: str = ""


@dataclass(frozen=True)
class Wish:
    """What the caller fixes; None is up to the composer."""

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
    bar: int
    bars: int
    parts: frozenset[str]
    progression: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """A composed piece. `meter` is 3, 4 or 6 (for 6/8; its beat is the dotted quarter)."""

    seed: int
    style: str
    bpm: int
    tonic: str
    mode: str
    meter: int
    seconds: int
    instruments: dict[str, str]  # part -> instrument; drums are there only if the piece has any
    sections: tuple[Section, ...]
    solo: bool
    caption: str = ""
    lyrics: str = ""
    language: str = "unknown"
    notes: tuple[Note, ...] = field(default=(), repr=False)

    @property
    def beat_seconds(self) -> float:
        """Exact, where `bpm` is rounded."""
        return TEMPI[self.bpm] / FRAME_RATE if self.bpm in TEMPI else 60 / self.bpm

    @property
    def key(self) -> str:
        return f"{self.tonic} {self.mode}"


# What each section lets sound, and how its melody behaves (register in scale steps, share of the style's density).
SECTION_PARTS = {
    "Intro": frozenset({"chords", "bass", "pad"}),
    "Verse": frozenset({"drums", "bass", "chords", "voice"}),
    "Chorus": frozenset({"drums", "bass", "chords", "pad", "melody", "voice"}),
    "Bridge": frozenset({"chords", "pad", "melody"}),
    "Solo": frozenset({"drums", "bass", "chords", "melody"}),
    "Outro": frozenset({"bass", "chords", "pad", "melody"}),
}
SECTION_MELODY = {"Verse": (0, 0.8), "Chorus": (3, 1.2), "Bridge": (1, 0.6), "Solo": (4, 1.4), "Outro": (0, 0.6)}
FORMS = {
    1: (("Verse",), ("Chorus",)),
    2: (("Verse", "Chorus"), ("Intro", "Chorus"), ("Chorus", "Outro"), ("Intro", "Verse"), ("Chorus", "Bridge")),
    3: (
        ("Intro", "Verse", "Chorus"),
        ("Verse", "Chorus", "Outro"),
        ("Verse", "Bridge", "Chorus"),
        ("Intro", "Solo", "Chorus"),
    ),
    4: (
        ("Intro", "Verse", "Chorus", "Outro"),
        ("Verse", "Chorus", "Bridge", "Chorus"),
        ("Verse", "Chorus", "Solo", "Chorus"),
    ),
    5: (("Intro", "Verse", "Chorus", "Bridge", "Chorus"), ("Intro", "Verse", "Chorus", "Solo", "Outro")),
}
LOWEST = {"bass": 31, "chords": 52, "pad": 50, "melody": 65, "voice": 57}


def compose(seed: int, wish: Wish | None = None) -> Piece:
    """A piece by seed; what `wish` fixes is kept. 10 to 30 seconds long unless it says otherwise."""
    wish = wish or Wish()
    rng = np.random.default_rng(seed)
    piece = _choose(seed, wish, rng)
    piece = replace(piece, sections=_sections(piece, rng))
    piece = replace(piece, notes=tuple(_Writer(piece, rng).write()))
    lyrics, sung_language = words.lyrics(piece, rng)
    return replace(piece, caption=words.caption(piece, rng), lyrics=lyrics, language=sung_language)


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


def _choose(seed: int, wish: Wish, rng: np.random.Generator) -> Piece:
    names = [
        n
        for n, s in STYLES.items()
        if (wish.meter is None or wish.meter in s.meters)
        and (wish.mode is None or wish.mode in s.modes)
        and (wish.bpm is None or s.tempo[0] * 0.9 <= wish.bpm <= s.tempo[1] * 1.1)
    ]
    name = wish.style or _pick(rng, names or list(STYLES))
    style = STYLES[name]
    bpm = wish.bpm or _pick(rng, [bpm for bpm in TEMPI if style.tempo[0] <= bpm <= style.tempo[1]])
    meter = wish.meter or _pick(rng, style.meters)
    if wish.bpm is None and meter == 6:
        bpm = nearest_tempo(max(60, bpm * 0.7))  # two slow beats a bar
    solo = wish.solo if wish.solo is not None else (_pick(rng, SOLO_INSTRUMENTS) if rng.random() < 0.12 else "")
    if solo:
        instruments = {"bass": solo, "chords": solo, "melody": solo}
    else:
        instruments = {
            "bass": _pick(rng, style.bass),
            "chords": _pick(rng, style.chords),
            "melody": _pick(rng, style.melody),
        }
        if style.pad and rng.random() < 0.7:
            instruments["pad"] = _pick(rng, style.pad)
        if style.groove != "none":
            instruments["drums"] = "drums"
        sung = rng.random() < style.sung if wish.sung is None else wish.sung
        if sung:
            instruments["voice"] = "voice"
    return Piece(
        seed=seed,
        style=name,
        bpm=bpm,
        tonic=wish.tonic or _pick(rng, TONICS),
        mode=wish.mode or _pick(rng, style.modes),
        meter=meter,
        seconds=wish.seconds or int(rng.integers(10, 31)),
        instruments=instruments,
        sections=(),
        solo=bool(solo),
    )


def _sections(piece: Piece, rng: np.random.Generator) -> tuple[Section, ...]:
    """Splits the whole bars of the piece into sections of at least two bars each; lengths are even where possible."""
    bar_seconds = piece.beat_seconds * BEATS[piece.meter]
    bars = max(2, int(piece.seconds / bar_seconds + 0.25))
    count = int(np.clip(round(bars / 6), 1, 5))
    form = _pick(rng, FORMS[count])
    verse, chorus = _pick(rng, PROGRESSIONS[piece.mode]), _pick(rng, CHORUS_PROGRESSIONS[piece.mode])
    weights = np.array([0.6 if tag in ("Intro", "Outro") else 1.0 for tag in form])
    edges = np.round(np.cumsum(weights) / weights.sum() * bars / 2).astype(int) * 2
    edges[-1] = bars
    sections, bar = [], 0
    for tag, edge in zip(form, edges, strict=True):
        parts = SECTION_PARTS[tag] if count > 1 else SECTION_PARTS["Chorus"]
        progression = chorus if tag == "Chorus" else verse
        sections.append(Section(tag, bar, max(int(edge) - bar, 0), parts, progression))
        bar = int(edge)
    return tuple(s for s in sections if s.bars > 0)


class _Writer:
    """Writes the notes of one piece, part by part, bar by bar."""

    def __init__(self, piece: Piece, rng: np.random.Generator):
        self.piece, self.rng = piece, rng
        self.style: Style = STYLES[piece.style]
        self.scale = SCALES[piece.mode]
        self.tonic = TONICS.index(piece.tonic)
        self.steps = STEPS[piece.meter]
        self.step_seconds = piece.beat_seconds / STEPS_PER_BEAT[piece.meter]
        self.sevenths = rng.random() < self.style.sevenths
        self.comping = _pick(rng, self.style.comping)
        self.bass_line = _pick(rng, self.style.bass_lines)
        self.notes: list[Note] = []
        self.last_degree = 0

    def write(self) -> list[Note]:
        for section in self.piece.sections:
            self._section(section)
        self._ending()
        end = self.piece.seconds
        notes = [n._replace(seconds=min(n.seconds, end - n.start)) for n in self.notes if n.start < end - 0.05]
        return sorted(notes)

    def _section(self, section: Section) -> None:
        parts = section.parts & set(self.piece.instruments)
        if self.piece.solo:
            parts = {"chords", "bass", "melody"}
        if not parts & {"melody", "voice"} and section.tag != "Intro":
            parts = parts | {"melody"}
        if "voice" in parts and section.tag in ("Verse", "Chorus"):
            parts = parts - {"melody"}
        loud = {"Intro": 0.8, "Verse": 0.85, "Chorus": 1.0, "Bridge": 0.75, "Solo": 1.0, "Outro": 0.8}[section.tag]
        motif = self._motif(section.tag)
        for index in range(section.bars):
            bar = section.bar + index
            chord = section.progression[index % len(section.progression)]
            if "drums" in parts:
                self._drums(bar, loud, first=index == 0, last=index == section.bars - 1)
            if "bass" in parts:
                self._bass(bar, chord, loud)
            if "chords" in parts:
                self._chords(bar, chord, loud)
            if "pad" in parts:
                self._hold(bar, chord, "pad", 0.6 * loud)
            for part in [p for p in ("melody", "voice") if p in parts]:
                self._melody(bar, chord, part, motif[index % 2], loud, closing=index % 4 == 3)

    # --- time and pitch -------------------------------------------------------------------------------------------

    def _time(self, bar: int, step: float) -> float:
        late = 0.0
        if self.style.swing and self.piece.meter != 6 and step % 4 == 2:
            late = self.style.swing * self.piece.beat_seconds
        return (bar * self.steps + step) * self.step_seconds + late

    def _midi(self, degree: int, part: str) -> int:
        """Scale degree (0 the tonic, 7 an octave above) to MIDI, the tonic lying just above the part's lowest note."""
        low = LOWEST[part]
        base = low + (self.tonic - low) % 12
        return base + 12 * (degree // 7) + self.scale[degree % 7]

    def _chord_degrees(self, chord: int) -> list[int]:
        """Close position within an octave of the tonic, so that voices move little."""
        members = [0, 2, 4, 6] if self.sevenths else [0, 2, 4]
        return sorted((chord + m) % 7 for m in members)

    def _add(
        self, bar: int, step: float, steps: float, pitch: int, velocity: float, part: str, vowel: str = ""
    ) -> None:
        start = self._time(bar, step)
        human = 1 + 0.08 * float(self.rng.standard_normal())
        self.notes.append(
            Note(start, steps * self.step_seconds, pitch, float(np.clip(velocity * human, 0.05, 1)), part, vowel)
        )

    # --- parts ----------------------------------------------------------------------------------------------------

    def _drums(self, bar: int, loud: float, first: bool, last: bool) -> None:
        for drum, pattern in GROOVES[self.style.groove][self.piece.meter].items():
            for step, mark in enumerate(pattern):
                if mark == "." or (last and step >= self.steps - 4 and drum in ("hat", "shaker")):
                    continue
                self._add(bar, step, 1, DRUMS.index(drum), loud * (1.0 if mark == "x" else 0.55), "drums")
        if first and bar > 0:
            self._add(bar, 0, 8, DRUMS.index("crash"), 0.7 * loud, "drums")
        if last:
            for k in range(4):
                self._add(
                    bar,
                    self.steps - 4 + k,
                    1,
                    DRUMS.index("tom" if k % 2 else "snare"),
                    (0.5 + 0.12 * k) * loud,
                    "drums",
                )

    def _bass(self, bar: int, chord: int, loud: float) -> None:
        pattern = BASS_LINES[self.bass_line][self.piece.meter]
        hits = [i for i, mark in enumerate(pattern) if mark != "."]
        for n, step in enumerate(hits):
            until = hits[n + 1] if n + 1 < len(hits) else self.steps
            degree = chord if n == 0 or self.rng.random() < 0.6 else chord + int(_pick(self.rng, (4, 7, 2)))
            if degree - 7 >= 0 and n == 0:
                degree -= 7
            self._add(bar, step, (until - step) * 0.9, self._midi(degree, "bass"), 0.95 * loud, "bass")

    def _chords(self, bar: int, chord: int, loud: float) -> None:
        pattern = COMPING[self.comping][self.piece.meter]
        degrees = self._chord_degrees(chord)
        hits = [i for i, mark in enumerate(pattern) if mark != "."]
        for n, step in enumerate(hits):
            until = hits[n + 1] if n + 1 < len(hits) else self.steps
            velocity = loud * (0.75 if pattern[step] == "x" else 0.55)
            if "arpeggio" in self.comping:
                order = degrees + [degrees[0] + 7] + degrees[:0:-1]
                self._add(
                    bar, step, (until - step) * 1.5, self._midi(order[n % len(order)], "chords"), velocity, "chords"
                )
                continue
            length = (until - step) * (0.5 if self.comping in ("skank", "offbeats") else 0.92)
            for voice, degree in enumerate(degrees):
                strum = 0.15 * voice if self.comping == "strum" else 0.0
                self._add(bar, step + strum, length, self._midi(degree, "chords"), 0.8 * velocity, "chords")

    def _hold(self, bar: int, chord: int, part: str, velocity: float) -> None:
        for degree in self._chord_degrees(chord):
            self._add(bar, 0, self.steps * 1.02, self._midi(degree, part), velocity, part)

    def _motif(self, tag: str) -> list[list[tuple[int, int, int]]]:
        """Two bars of (step, length, move in scale steps), repeated through the section so that it becomes a tune."""
        register, density = SECTION_MELODY.get(tag, (0, 1.0))
        density = float(np.clip(self.style.density * density, 0.15, 0.9))
        unit = 2 if self.piece.meter != 6 else 2
        bars = []
        for _ in range(2):
            on = [
                s
                for s in range(0, self.steps, unit)
                if self.rng.random()
                < (min(1.0, density + 0.35) if s % STEPS_PER_BEAT[self.piece.meter] == 0 else density * 0.8)
            ]
            on = on or [0]
            moves = self.rng.choice([-2, -1, -1, 0, 1, 1, 2, 3, -3], size=len(on))
            ends = on[1:] + [self.steps]
            bars.append([(s, e - s, int(m)) for s, e, m in zip(on, ends, moves, strict=True)])
        self.last_degree = register
        return bars

    def _melody(
        self, bar: int, chord: int, part: str, motif: list[tuple[int, int, int]], loud: float, closing: bool
    ) -> None:
        chord_tones = {(chord + m) % 7 for m in (0, 2, 4)}
        degree = self.last_degree
        if closing:
            motif = [m for m in motif if m[0] < self.steps // 2] or motif[:1]
            motif = motif[:-1] + [(motif[-1][0], self.steps - motif[-1][0], motif[-1][2])]
        for n, (step, length, move) in enumerate(motif):
            degree = int(np.clip(degree + move, -2, 9))
            strong = step % STEPS_PER_BEAT[self.piece.meter] == 0
            if (strong or (closing and n == len(motif) - 1)) and degree % 7 not in chord_tones:
                near = [d for d in (degree - 1, degree + 1, degree - 2, degree + 2) if d % 7 in chord_tones]
                degree = near[0]
            vowel = _pick(self.rng, "aeiou") if part == "voice" else ""
            held = min(length, self.steps) * 0.92
            self._add(bar, step, held, self._midi(degree, part), (0.95 if strong else 0.8) * loud, part, vowel)
        self.last_degree = degree

    def _ending(self) -> None:
        """The tonic chord rings from the last whole bar to the end of the piece."""
        last = self.piece.sections[-1]
        bar = last.bar + last.bars
        rest = self.piece.seconds - self._time(bar, 0)
        if rest < 0.05:
            return
        steps = rest / self.step_seconds
        for degree in self._chord_degrees(0):
            self._add(bar, 0, steps, self._midi(degree, "chords"), 0.7, "chords")
        self._add(bar, 0, steps, self._midi(0, "bass"), 0.9, "bass")
        if "drums" in self.piece.instruments:
            self._add(bar, 0, 8, DRUMS.index("crash"), 0.7, "drums")
            self._add(bar, 0, 1, DRUMS.index("kick"), 0.9, "drums")
