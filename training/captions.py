"""Captions and lyrics for composed pieces. They name only what is in the piece, in varied wording."""

from __future__ import annotations

import re

import numpy as np

from .piece import Piece
from .styles import INSTRUMENT_NAMES, STYLES

MOODS = {
    ("major", "slow"): ("calm", "gentle", "warm", "dreamy", "tender", "peaceful"),
    ("major", "fast"): ("happy", "uplifting", "cheerful", "energetic", "sunny", "playful"),
    ("minor", "slow"): ("sad", "melancholic", "dark", "lonely", "moody", "nostalgic"),
    ("minor", "fast"): ("tense", "dramatic", "urgent", "mysterious", "restless", "fierce"),
}
TEMPO_WORDS = (
    (80, ("very slow", "slow", "unhurried")),
    (105, ("relaxed", "mid-tempo", "moderate")),
    (135, ("lively", "upbeat", "brisk")),
    (999, ("fast", "very fast", "rapid")),
)

TEMPLATES = (
    "{mood} {style} with {band}",
    "A {mood} {style} piece, {tempo}, featuring {band}",
    "{style}, {mood}, {tempo}, {band}",
    "{mood}, {tempo} {style}. Instruments: {band}.",
    "{Band} play a {mood} {style} tune at a {tempo} tempo",
    "{tempo} {style} in a {mode} key with {band}",
    "An instrumental {style} track: {band}; the mood is {mood}",
    "{style}, {band}",
)
SOLO_TEMPLATES = (
    "solo {band}, {mood}, no drums",
    "A {mood} {style} piece for solo {band}",
    "{band} alone, {tempo} and {mood}, {style}",
    "Solo {band}. {tempo}, {mood}, in a {mode} key.",
)

SUBJECTS = (
    "the river",
    "my heart",
    "the morning",
    "a stranger",
    "the city",
    "my shadow",
    "the train",
    "an old song",
    "the rain",
    "your voice",
    "the summer",
    "a lantern",
    "the ocean",
    "my brother",
    "the radio",
    "a sparrow",
    "the winter",
    "the road",
)
VERBS = (
    "is singing",
    "goes dancing",
    "keeps calling",
    "is waiting",
    "runs slowly",
    "comes falling",
    "remembers",
    "is burning",
    "keeps turning",
    "will carry me",
    "is dreaming",
    "goes wandering",
    "lights up",
    "slips away",
    "never sleeps",
)
PLACES = (
    "in the morning light",
    "by the open door",
    "over silver hills",
    "under the streetlights",
    "in a quiet room",
    "on the water",
    "through the empty town",
    "beyond the wire",
    "with the rising tide",
    "when the day is done",
    "at the break of dawn",
    "along the garden wall",
    "until the stars are gone",
    "like it did before",
)
HOOKS = (
    "Hold on, hold on",
    "Sing it again",
    "Oh, carry me home",
    "We are the light",
    "Turn it around",
    "Stay with me now",
    "La la la, la la",
    "Run to the sea",
    "Never let go",
    "Come back to me",
)


def pick(rng: np.random.Generator, choices):
    """Draw one of the choices."""
    return choices[int(rng.integers(len(choices)))]


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def write_caption(piece: Piece, rng: np.random.Generator) -> str:
    """Return a sentence or a list of tags. Some captions leave out one of more than three instruments."""
    named: list[tuple[str, str]] = []  # instrument, its name in the caption
    for part in ("melody", "chords", "voice", "pad", "bass", "drums"):
        instrument = piece.instruments.get(part)
        if instrument and instrument not in [other for other, _ in named]:
            named.append((instrument, pick(rng, INSTRUMENT_NAMES[instrument])))
    band = [name for _, name in named]
    if len(band) > 3 and rng.random() < 0.3:
        band.pop(int(rng.integers(1, len(band))))
    drumless = not piece.solo and "drums" not in piece.instruments and rng.random() < 0.4
    beat = piece.bpm * (1.4 if piece.meter == 6 else 1)
    fields = {
        "style": pick(rng, _style_names(piece)),
        "mood": pick(rng, MOODS[piece.mode, "slow" if beat < 105 else "fast"]),
        "tempo": pick(rng, next(w for limit, w in TEMPO_WORDS if beat < limit)),
        "mode": piece.mode,
        "band": _join(band),
    }
    templates = SOLO_TEMPLATES if piece.solo else TEMPLATES
    if "voice" in piece.instruments:
        templates = tuple(t for t in templates if "nstrumental" not in t)
    text = pick(rng, templates).format(Band=fields["band"], **fields) + (", no drums" if drumless else "")
    text = re.sub(r"\b([Aa]) (?=[aeiou8])", r"\1n ", text)
    return text if rng.random() < 0.3 else text[0].upper() + text[1:]


def _style_names(piece: Piece) -> tuple[str, ...]:
    """Return the style's names. Only pieces in three get the names of waltzes and minuets."""
    three = ("waltz", "minuet")
    names = tuple(n for n in STYLES[piece.style].names if piece.meter == 3 or not n.endswith(three))
    return names or STYLES[piece.style].names


def write_lyrics(piece: Piece, rng: np.random.Generator) -> tuple[str, str]:
    """Return structured lyrics and their language. Only sung pieces have lines under their section tags."""
    if "voice" not in piece.instruments:
        if rng.random() < 0.5:
            return "[Instrumental]", "unknown"
        return "\n\n".join(f"[{s.tag}]" for s in piece.sections), "unknown"
    chorus = "\n".join([pick(rng, HOOKS)] * 2)
    blocks = []
    for section in piece.sections:
        lines = ""
        if section.tag == "Chorus":
            lines = "\n" + chorus
        elif section.tag == "Verse":
            lines = "".join(f"\n{_line(rng)}" for _ in range(int(np.clip(section.bars // 2, 1, 4))))
        blocks.append(f"[{section.tag}]{lines}")
    return "\n\n".join(blocks), "en"


def _line(rng: np.random.Generator) -> str:
    text = f"{pick(rng, SUBJECTS)} {pick(rng, VERBS)} {pick(rng, PLACES)}"
    return text[0].upper() + text[1:]
