"""Put the lyrics of a piece under the notes of its voice, a syllable a note."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from acestep_core.lyrics.structure import SungLine, parse_lyrics

from .piece import Note, Piece, Section
from .styles import BEATS

# Vowels that have another sound than their first letter.
SOUNDS = {"ea": "i", "ee": "i", "oo": "u", "ou": "u", "ai": "e", "ay": "e", "igh": "a"}
VOWELS = re.compile(r"igh|[aeiouy]+")
# Consonants by their sound. All others are sung like the vowel.
CONSONANTS = {**dict.fromkeys("sfhzvcjx", "s"), **dict.fromkeys("ptkbdgq", "t")}
SILENT = re.compile(r"(?<=[aeiouy])(.*[^aeiouy])e(?=[^a-z]*$)")  # the last letter of "home", not of "the"
SHORTEST = 0.16  # seconds; shorter notes are not divided


class Syllable(NamedTuple):
    """A syllable. first, last: places of its characters in the lyrics, `last` excluded."""

    first: int
    last: int
    vowel: str
    consonant: str


class SungSyllable(NamedTuple):
    """A syllable in time: start and end in seconds, the places of its characters, the index of its line."""

    start: float
    end: float
    first: int
    last: int
    line: int


def syllables(line: SungLine) -> list[Syllable]:
    """Return the syllables of a line: groups of vowels, each with the consonant before."""
    found: list[Syllable] = []
    for text, places in line.words:
        vowels = list(VOWELS.finditer(SILENT.sub(r"\1-", text.lower())))
        edges = [0, *(max(vowel.start() - 1, before.end()) for before, vowel in pairwise(vowels)), len(text)]
        for vowel, (first, last) in zip(vowels, pairwise(edges), strict=False):
            consonant = CONSONANTS.get(text[first].lower(), "")
            found.append(Syllable(places[first], places[last - 1] + 1, _sound(vowel[0]), consonant))
    return found


def _sound(letters: str) -> str:
    sound = SOUNDS.get(letters, letters[0])
    return "i" if sound == "y" else sound


def put_lyrics_under_notes(piece: Piece) -> Piece:
    """Return the piece with a vowel and a place in the lyrics for each note of its voice.

    The bars of a section are divided among its lines. Long notes are divided if a line has more syllables than notes.
    If a line has fewer, some syllables have several notes.
    """
    if "voice" not in piece.instruments:
        return piece
    notes = [note for note in piece.notes if note.part != "voice"]
    voice = [note for note in piece.notes if note.part == "voice"]
    for line, (start, end) in _lines_in_time(piece):
        own = [note for note in voice if start <= note.start < end]
        voice = [note for note in voice if not start <= note.start < end]
        notes += _with_syllables(own, syllables(line)) if own else []
    return replace(piece, notes=tuple(sorted(notes + voice)))


def _lines_in_time(piece: Piece) -> Iterator[tuple[SungLine, tuple[float, float]]]:
    """Yield each line with the seconds that it may last."""
    bar_seconds = piece.beat_seconds * BEATS[piece.meter]
    structure = parse_lyrics(piece.lyrics)
    for index, section in enumerate(piece.sections):
        lines = [line for line in structure.lines if line.section == index]
        edges = _edges(section, len(lines)) * bar_seconds - 0.01
        yield from zip(lines, zip(edges[:-1], edges[1:], strict=True), strict=True)


def _edges(section: Section, lines: int) -> np.ndarray:
    """Return the bars at which the lines of a section start and end, whole bars if there are enough."""
    edges = np.linspace(0, section.bars, lines + 1)
    return section.bar + (np.round(edges) if section.bars >= lines else edges)


def _with_syllables(notes: list[Note], sung: list[Syllable]) -> list[Note]:
    notes = list(notes)
    while len(notes) < len(sung):
        longest = max(range(len(notes)), key=lambda i: notes[i].seconds)
        note = notes[longest]
        if note.seconds < SHORTEST:
            break
        half = note.seconds / 2
        notes[longest : longest + 1] = [
            note._replace(seconds=0.92 * half),
            note._replace(start=note.start + half, seconds=0.92 * half),
        ]
    chosen = [i * len(sung) // len(notes) for i in range(len(notes))]
    return [
        _with_syllable(note, sung[i], first=i != before)
        for note, i, before in zip(notes, chosen, [-1, *chosen], strict=False)
    ]


def _with_syllable(note: Note, syllable: Syllable, first: bool) -> Note:
    """Return the note with a syllable. Only its first note has the consonant."""
    consonant = syllable.consonant if first else ""
    return note._replace(vowel=syllable.vowel, consonant=consonant, places=(syllable.first, syllable.last))


def sung_syllables(piece: Piece) -> list[SungSyllable]:
    """Return when each syllable is sung, in order. A syllable ends with its last note."""
    owner = {
        place: i for i, line in enumerate(parse_lyrics(piece.lyrics).lines) for _, word in line.words for place in word
    }
    sung: list[SungSyllable] = []
    for note in piece.notes:
        if not note.places:
            continue
        end = note.start + note.seconds
        if sung and (sung[-1].first, sung[-1].last) == note.places:
            sung[-1] = sung[-1]._replace(end=end)
        else:
            sung.append(SungSyllable(note.start, end, *note.places, owner[note.places[0]]))
    return sung


def line_starts(piece: Piece) -> dict[int, float]:
    """Return when each line starts, in seconds, by its index. A line without notes is left out."""
    starts: dict[int, float] = {}
    for syllable in sung_syllables(piece):
        starts.setdefault(syllable.line, syllable.start)
    return starts
