"""The composer's tables of styles, grooves, chord progressions and instruments.

Rhythms are strings on a grid of sixteenths, one bar long. `x` is loud, `o` soft, `.` a rest. A bar of 4/4 has 16 steps,
a bar of 3/4 or 6/8 twelve. The beat of 6/8 is the dotted quarter (6 steps), so its BPM counts two beats a bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from acestep_core.config import FRAME_RATE

STEPS = {4: 16, 3: 12, 6: 12}  # sixteenths a bar, by time signature
STEPS_PER_BEAT = {4: 4, 3: 4, 6: 6}
BEATS = {4: 4, 3: 3, 6: 2}

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}

# Scale degrees of the chords, one a bar. They begin on the tonic, which makes the key clear.
PROGRESSIONS = {
    "major": ((0, 4, 5, 3), (0, 3, 0, 4), (0, 5, 3, 4), (0, 3, 4, 0), (0, 1, 4, 0), (0, 2, 3, 4)),
    "minor": ((0, 5, 2, 6), (0, 3, 0, 6), (0, 5, 3, 4), (0, 6, 5, 6), (0, 3, 4, 0), (0, 0, 5, 4)),
}
CHORUS_PROGRESSIONS = {
    "major": ((0, 4, 5, 3), (0, 3, 4, 0), (3, 4, 0, 5)),
    "minor": ((0, 5, 2, 6), (5, 6, 0, 0), (0, 3, 5, 4)),
}

DRUMS = ("kick", "snare", "hat", "open_hat", "rim", "shaker", "ride", "crash", "tom")

GROOVES: dict[str, dict[int, dict[str, str]]] = {
    "rock": {
        4: {"kick": "x.......x.x.....", "snare": "....x.......x...", "hat": "x.o.x.o.x.o.x.o."},
        3: {"kick": "x.........o.", "snare": "....x...x...", "hat": "x.o.x.o.x.o."},
        6: {"kick": "x.........o.", "snare": "......x.....", "hat": "x.o.o.x.o.o."},
    },
    "floor": {
        4: {
            "kick": "x...x...x...x...",
            "snare": "....o.......o...",
            "open_hat": "..x...x...x...x.",
            "shaker": "o.oo" * 4,
        },
        3: {"kick": "x...x...x...", "snare": "........o...", "open_hat": "..x...x...x."},
        6: {"kick": "x.....x.....", "snare": "......o.....", "open_hat": "..o.o...o.o."},
    },
    "lazy": {
        4: {"kick": "x......x..x.....", "snare": "....x.......x...", "hat": "x.x.x.xox.x.x.x."},
        3: {"kick": "x......x....", "snare": "........x...", "hat": "x.x.x.x.x.x."},
        6: {"kick": "x.......o...", "snare": "......x.....", "hat": "x.o.o.x.o.o."},
    },
    "bossa": {
        4: {"kick": "x..ox..ox..ox..o", "rim": "x..x..x...x..x..", "shaker": "xoxo" * 4},
        3: {"kick": "x...o...o...", "rim": "....x...x...", "shaker": "xoxoxoxoxoxo"},
        6: {"kick": "x.....o.....", "rim": "....x.x.....", "shaker": "x.o.o.x.o.o."},
    },
    "swing": {
        4: {"kick": "x.......o.......", "ride": "x...x..ox...x..o", "hat": "....x.......x..."},
        3: {"kick": "x...........", "ride": "x...x..ox...", "hat": "....x...x..."},
        6: {"kick": "x...........", "ride": "x...o.x...o.", "hat": "......x....."},
    },
    "one_drop": {
        4: {"kick": "........x.......", "rim": "........x.......", "hat": "x.x.x.x.x.x.x.xo"},
        3: {"kick": "....x.......", "rim": "....x.......", "hat": "x.x.x.x.x.x."},
        6: {"kick": "......x.....", "rim": "......x.....", "hat": "x.o.o.x.o.o."},
    },
    "none": {4: {}, 3: {}, 6: {}},
}

COMPING: dict[str, dict[int, str]] = {
    "sustain": {4: "x...............", 3: "x...........", 6: "x..........."},
    "beats": {4: "x...o...x...o...", 3: "x...o...o...", 6: "x.....o....."},
    "offbeats": {4: "....x.......x...", 3: "....x...x...", 6: "....o.....o."},
    "skank": {4: "..x...x...x...x.", 3: "..x...x...x.", 6: "..o.o...o.o."},
    "bossa": {4: "x..x..x...x..x..", 3: "x...x..x....", 6: "x...o.x....."},
    "strum": {4: "x...x.xo.ox.x.xo", 3: "x...x.o.x.o.", 6: "x.o.o.x.o.o."},
    "arpeggio": {4: "x.o.o.o.x.o.o.o.", 3: "x.o.o.o.o.o.", 6: "x.o.o.x.o.o."},
    "fast_arpeggio": {4: "xooo" * 4, 3: "xooo" * 3, 6: "xooooo" * 2},
}

BASS_LINES: dict[str, dict[int, str]] = {
    "long": {4: "x...............", 3: "x...........", 6: "x..........."},
    "halves": {4: "x.......x.......", 3: "x.......o...", 6: "x.....o....."},
    "beats": {4: "x...o...x...o...", 3: "x...o...o...", 6: "x.....o....."},
    "eighths": {4: "x.o.x.o.x.o.x.o.", 3: "x.o.x.o.x.o.", 6: "x.o.o.x.o.o."},
    "syncopated": {4: "x..x..x.x..x..o.", 3: "x..x..x.....", 6: "x...o.x...o."},
    "offbeats": {4: "..x...x...x...x.", 3: "..x...x...x.", 6: "..x.....x..."},
}


# Beats of whole or half latent frames, because a small model counts others badly. Every tempo from 60 to 180 BPM is
# within 4 % of one of these.
BEAT_FRAMES = (*(n / 2 for n in range(17, 26)), *map(float, range(13, 26)))
TEMPI = {round(60 * FRAME_RATE / frames): frames for frames in BEAT_FRAMES}  # BPM -> frames in a beat


def nearest_tempo(bpm: float) -> int:
    """Return the BPM of `TEMPI` with the closest ratio to `bpm`."""
    return min(TEMPI, key=lambda other: abs(log(other / bpm)))


@dataclass(frozen=True)
class Style:
    """The choices of one style. The composer draws from each tuple once a piece."""

    names: tuple[str, ...]  # in captions
    tempo: tuple[int, int]
    meters: tuple[int, ...]
    modes: tuple[str, ...]
    groove: str
    comping: tuple[str, ...]
    bass_lines: tuple[str, ...]
    chords: tuple[str, ...]  # instruments
    melody: tuple[str, ...]
    bass: tuple[str, ...] = ("bass",)
    pad: tuple[str, ...] = ()
    sevenths: float = 0.0  # share of pieces whose chords have sevenths
    swing: float = 0.0  # delay of the off-beat eighths, in beats
    density: float = 0.5  # of the melody
    sung: float = 0.3  # share of pieces with a voice


BOTH = ("major", "minor")

STYLES: dict[str, Style] = {
    "pop": Style(
        ("pop", "bright pop", "radio pop"),
        (90, 130),
        (4,),
        ("major", "major", "minor"),
        "rock",
        ("beats", "arpeggio"),
        ("beats", "eighths"),
        ("piano", "electric piano", "guitar"),
        ("lead", "bells", "flute"),
        pad=("strings", "pad"),
        sung=0.6,
    ),
    "rock": Style(
        ("rock", "indie rock", "driving rock"),
        (110, 170),
        (4,),
        BOTH,
        "rock",
        ("strum", "beats"),
        ("eighths",),
        ("guitar", "organ"),
        ("lead",),
        density=0.6,
        sung=0.5,
    ),
    "synthwave": Style(
        ("synthwave", "retro electronic", "80s synth music"),
        (80, 118),
        (4,),
        ("minor",),
        "floor",
        ("fast_arpeggio", "sustain"),
        ("eighths",),
        ("lead", "electric piano"),
        ("lead", "bells"),
        bass=("synth bass",),
        pad=("pad",),
        sung=0.1,
    ),
    "house": Style(
        ("house", "dance music", "club house"),
        (116, 130),
        (4,),
        ("minor", "major"),
        "floor",
        ("skank", "bossa"),
        ("offbeats", "syncopated"),
        ("organ", "electric piano", "piano"),
        ("lead", "bells"),
        bass=("synth bass",),
        pad=("pad", "strings"),
        sevenths=0.5,
        sung=0.2,
    ),
    "lofi": Style(
        ("lo-fi hip hop", "lofi beats", "chill hop"),
        (68, 92),
        (4,),
        BOTH,
        "lazy",
        ("beats", "sustain"),
        ("syncopated", "halves"),
        ("electric piano", "guitar"),
        ("flute", "bells", "electric piano"),
        sevenths=1.0,
        swing=0.12,
        density=0.35,
        sung=0.1,
    ),
    "jazz": Style(
        ("jazz", "swing jazz", "jazz waltz"),
        (100, 180),
        (4, 3),
        BOTH,
        "swing",
        ("offbeats", "beats"),
        ("beats",),
        ("piano", "electric piano"),
        ("flute", "guitar", "piano"),
        sevenths=1.0,
        swing=0.16,
        density=0.65,
        sung=0.1,
    ),
    "bossa": Style(
        ("bossa nova", "brazilian lounge", "latin jazz"),
        (110, 150),
        (4,),
        BOTH,
        "bossa",
        ("bossa",),
        ("halves",),
        ("guitar",),
        ("flute", "electric piano", "piano"),
        sevenths=1.0,
        sung=0.3,
    ),
    "reggae": Style(
        ("reggae", "dub reggae", "roots reggae"),
        (70, 100),
        (4,),
        BOTH,
        "one_drop",
        ("skank",),
        ("syncopated",),
        ("organ", "guitar"),
        ("lead", "flute", "organ"),
        density=0.4,
        sung=0.4,
    ),
    "folk": Style(
        ("folk", "acoustic folk", "country waltz"),
        (80, 130),
        (4, 3, 6),
        ("major", "major", "minor"),
        "none",
        ("strum", "arpeggio"),
        ("halves",),
        ("guitar",),
        ("flute", "guitar", "strings"),
        sung=0.6,
    ),
    "lullaby": Style(
        ("lullaby", "music box", "cradle song"),
        (60, 90),
        (3, 6),
        ("major",),
        "none",
        ("arpeggio",),
        ("long",),
        ("bells", "piano"),
        ("bells", "flute"),
        pad=("strings",),
        density=0.35,
        sung=0.3,
    ),
    "ambient": Style(
        ("ambient", "drone ambient", "meditative soundscape"),
        (60, 84),
        (4, 3),
        BOTH,
        "none",
        ("sustain", "arpeggio"),
        ("long",),
        ("pad", "electric piano"),
        ("bells", "flute"),
        pad=("pad", "strings"),
        density=0.2,
        sung=0.05,
    ),
    "chiptune": Style(
        ("chiptune", "8-bit game music", "retro video game"),
        (120, 180),
        (4, 3),
        BOTH,
        "rock",
        ("fast_arpeggio",),
        ("eighths",),
        ("pulse",),
        ("pulse",),
        bass=("synth bass",),
        density=0.7,
        sung=0.0,
    ),
    "classical": Style(
        ("classical", "chamber music", "baroque minuet"),
        (70, 140),
        (4, 3, 6),
        BOTH,
        "none",
        ("arpeggio", "beats"),
        ("beats", "halves"),
        ("strings", "piano"),
        ("flute", "strings", "piano"),
        bass=("strings",),
        density=0.6,
        sung=0.0,
    ),
    "march": Style(
        ("marching band", "festive polka", "oompah"),
        (96, 132),
        (4, 6),
        ("major",),
        "rock",
        ("offbeats",),
        ("beats",),
        ("organ", "brass"),
        ("brass", "flute"),
        density=0.55,
        sung=0.1,
    ),
}

SOLO_INSTRUMENTS = ("piano", "guitar", "electric piano", "organ", "bells", "strings")

INSTRUMENT_NAMES: dict[str, tuple[str, ...]] = {
    "piano": ("piano", "grand piano"),
    "guitar": ("acoustic guitar", "plucked guitar", "guitar"),
    "electric piano": ("electric piano", "Rhodes"),
    "organ": ("organ", "Hammond organ"),
    "pad": ("warm synth pad", "pad", "soft pads"),
    "lead": ("synth lead", "saw lead"),
    "bass": ("bass", "bass guitar"),
    "synth bass": ("synth bass", "analog bass"),
    "bells": ("bells", "glockenspiel", "music box bells"),
    "strings": ("strings", "string section"),
    "flute": ("flute", "wooden flute"),
    "pulse": ("pulse wave synth", "square wave synth"),
    "brass": ("brass", "trumpets"),
    "voice": ("vocals", "singing voice", "wordless voice"),
    "drums": ("drums", "drum kit"),
}
