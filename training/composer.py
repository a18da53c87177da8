"""Compose small pieces of music (chords, bass, melody, drums, sections), deterministic by seed.

`Constraints` fix some of the choices. The result holds the caption, metadata, structured lyrics, and the notes for
`training.synth`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .captions import pick, write_caption, write_lyrics
from .piece import Constraints, Note, Piece, Section
from .singing import put_lyrics_under_notes
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
from .wording import FREE_LYRICS, free_lyrics

SECTION_PARTS = {
    "Intro": frozenset({"chords", "bass", "pad"}),
    "Verse": frozenset({"drums", "bass", "chords", "voice"}),
    "Chorus": frozenset({"drums", "bass", "chords", "pad", "melody", "voice"}),
    "Bridge": frozenset({"chords", "pad", "melody"}),
    "Solo": frozenset({"drums", "bass", "chords", "melody"}),
    "Outro": frozenset({"bass", "chords", "pad", "melody"}),
}
# Register of the melody in scale steps, and its density relative to the style's.
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


def compose(seed: int, constraints: Constraints | None = None) -> Piece:
    """Compose the piece of a seed under some constraints. The default length is 10 to 30 seconds."""
    constraints = constraints or Constraints()
    rng = np.random.default_rng(seed)
    piece = _choose(seed, constraints, rng)
    piece = replace(piece, sections=_sections(piece, rng))
    piece = replace(piece, notes=tuple(_Writer(piece, rng).write()))
    lyrics, language = write_lyrics(piece, rng)
    if seed >= FREE_LYRICS:
        lyrics = free_lyrics(lyrics, seed)
    piece = replace(piece, caption=write_caption(piece, rng), lyrics=lyrics, language=language)
    return put_lyrics_under_notes(piece)


def _choose(seed: int, constraints: Constraints, rng: np.random.Generator) -> Piece:
    names = [
        n
        for n, s in STYLES.items()
        if (constraints.meter is None or constraints.meter in s.meters)
        and (constraints.mode is None or constraints.mode in s.modes)
        and (constraints.bpm is None or s.tempo[0] * 0.9 <= constraints.bpm <= s.tempo[1] * 1.1)
    ]
    name = constraints.style or pick(rng, names or list(STYLES))
    style = STYLES[name]
    bpm = constraints.bpm or pick(rng, [bpm for bpm in TEMPI if style.tempo[0] <= bpm <= style.tempo[1]])
    meter = constraints.meter or pick(rng, style.meters)
    if constraints.bpm is None and meter == 6:
        bpm = nearest_tempo(max(60, bpm * 0.7))  # two slow beats a bar
    solo = constraints.solo
    if solo is None:
        solo = pick(rng, SOLO_INSTRUMENTS) if rng.random() < 0.12 else ""
    if solo:
        instruments = {"bass": solo, "chords": solo, "melody": solo}
    else:
        instruments = {
            "bass": pick(rng, style.bass),
            "chords": pick(rng, style.chords),
            "melody": pick(rng, style.melody),
        }
        if style.pad and rng.random() < 0.7:
            instruments["pad"] = pick(rng, style.pad)
        if style.groove != "none":
            instruments["drums"] = "drums"
        sung = rng.random() < style.sung if constraints.sung is None else constraints.sung
        if sung:
            instruments["voice"] = "voice"
    return Piece(
        seed=seed,
        style=name,
        bpm=bpm,
        tonic=constraints.tonic or pick(rng, TONICS),
        mode=constraints.mode or pick(rng, style.modes),
        meter=meter,
        seconds=constraints.seconds or int(rng.integers(10, 31)),
        instruments=instruments,
        sections=(),
        solo=bool(solo),
    )


def _sections(piece: Piece, rng: np.random.Generator) -> tuple[Section, ...]:
    """Split the bars of the piece into sections of at least two bars, with even lengths where possible."""
    bar_seconds = piece.beat_seconds * BEATS[piece.meter]
    bars = max(2, int(piece.seconds / bar_seconds + 0.25))
    count = int(np.clip(round(bars / 6), 1, 5))
    form = pick(rng, FORMS[count])
    verse, chorus = pick(rng, PROGRESSIONS[piece.mode]), pick(rng, CHORUS_PROGRESSIONS[piece.mode])
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
    """Write the notes of one piece, bar by bar and part by part."""

    def __init__(self, piece: Piece, rng: np.random.Generator):
        self.piece, self.rng = piece, rng
        self.style: Style = STYLES[piece.style]
        self.scale = SCALES[piece.mode]
        self.tonic = TONICS.index(piece.tonic)
        self.steps = STEPS[piece.meter]
        self.step_seconds = piece.beat_seconds / STEPS_PER_BEAT[piece.meter]
        self.sevenths = rng.random() < self.style.sevenths
        self.comping = pick(rng, self.style.comping)
        self.bass_line = pick(rng, self.style.bass_lines)
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
        """Return the MIDI pitch of a scale degree: 0 is the tonic above the part's lowest note, 7 an octave more."""
        low = LOWEST[part]
        base = low + (self.tonic - low) % 12
        return base + 12 * (degree // 7) + self.scale[degree % 7]

    def _chord_degrees(self, chord: int) -> list[int]:
        """Return the chord in close position within an octave of the tonic, so that voices move little."""
        members = [0, 2, 4, 6] if self.sevenths else [0, 2, 4]
        return sorted((chord + m) % 7 for m in members)

    def _add(
        self, bar: int, step: float, steps: float, pitch: int, velocity: float, part: str, vowel: str = ""
    ) -> None:
        start = self._time(bar, step)
        variation = 1 + 0.08 * float(self.rng.standard_normal())
        self.notes.append(
            Note(start, steps * self.step_seconds, pitch, float(np.clip(velocity * variation, 0.05, 1)), part, vowel)
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
            degree = chord if n == 0 or self.rng.random() < 0.6 else chord + int(pick(self.rng, (4, 7, 2)))
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
        """Return two bars of (step, length, move in scale steps), which repeat through the section."""
        register, density = SECTION_MELODY.get(tag, (0, 1.0))
        density = float(np.clip(self.style.density * density, 0.15, 0.9))
        bars = []
        for _ in range(2):
            on = [
                s
                for s in range(0, self.steps, 2)
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
            vowel = pick(self.rng, "aeiou") if part == "voice" else ""
            held = min(length, self.steps) * 0.92
            self._add(bar, step, held, self._midi(degree, part), (0.95 if strong else 0.8) * loud, part, vowel)
        self.last_degree = degree

    def _ending(self) -> None:
        """Sustain the tonic chord from the last whole bar to the end of the piece."""
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
