"""Check lyrics before a song is generated, and estimate the duration that they need."""

from __future__ import annotations

import re
from collections import Counter
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ..config import MAX_SECONDS
from ..song.languages import LANGUAGES
from ..song.song import TRAINED_MIN_SECONDS, Song
from ..text.prompts import lyric_prompt
from .scripts import count_syllables, guess_language
from .structure import KINDS, TAG, Structure, kind_of, parse_lyrics, section_name

if TYPE_CHECKING:
    from ..text.tokenizer import Tokenizer

# Syllables a second over the whole song, pauses included. Pop songs have 1 to 3, rap up to 6.
SINGABLE, RAPPABLE = 4.0, 7.0
LONG_TAG = 40  # characters of a tag that a model may sing instead of obeying
SHORT_SECTION = 2  # lines of a section; sections of no more lines need no tag each

# Words of tags that direct the voice or the music inside a section.
_DIRECTIONS = frozenset(
    "vocal vocals voice voices whisper whispered whispering spoken falsetto belting shouted shouting screamed scream "
    "growl raspy harmony harmonies choir duet male female man woman boy girl ad-lib adlib humming vocalise scat soft "
    "softly loud quiet slow fast energy energetic powerful building emotional acapella cappella guitar piano drum "
    "drums bass strings violin sax saxophone synth flute trumpet brass beat applause laughter crowd pause key change "
    "all".split()
)
_HAN_SPACES = re.compile(r"[\u3400-\u9fff][ \u3000]+(?=[\u3400-\u9fff])")

# The estimate of a duration, in seconds.
_SYLLABLES_PER_SECOND = 3.0
_SHORTEST_LINE, _BREATH = 2.0, 0.8
_UNSUNG = {"intro": 8.0, "outro": 8.0, "silence": 3.0}
_INTERLUDE = 10.0  # any other section without lines
_ENDS = 6.0  # beginning and end of a song without these sections
_INSTRUMENTAL = 60.0


def check_lyrics(song: Song, tokenizer: Tokenizer | None = None) -> tuple[str, ...]:
    """Return a sentence for each thing in the lyrics that may sound poor. All of these lyrics are allowed.

    tokenizer: of the text encoder, to find lyrics that are too long for the model.
    """
    if song.instrumental:
        return ()
    structure = parse_lyrics(song.lyrics)
    notes = [
        _language_note(song, structure),
        _spaces_note(song.lyrics),
        *_tag_notes(song.lyrics),
        _couplets_note(structure),
        _speed_note(song, structure),
        None if tokenizer is None else _length_note(song, tokenizer),
    ]
    return tuple(note for note in notes if note is not None)


def lyric_language(lyrics: str) -> str | None:
    """Return the code of the language that the script of the sung lines shows, or None if it is not sure."""
    return guess_language("\n".join(line.text for line in parse_lyrics(lyrics).lines))


def estimate_duration(lyrics: str) -> float:
    """Estimate the seconds that lyrics need, a multiple of 5 from 10 to 600.

    A line takes 2 seconds at least, or a third of a second per syllable and a breath. A section without lines takes 8
    to 10 seconds.
    """
    structure = parse_lyrics(lyrics)
    sung = {line.section for line in structure.lines}
    lines = sum(
        max(_SHORTEST_LINE, count_syllables(line.text) / _SYLLABLES_PER_SECOND + _BREATH) for line in structure.lines
    )
    empty = [section.kind for i, section in enumerate(structure.sections) if i not in sung]
    seconds = lines + sum(_UNSUNG.get(kind, _INTERLUDE) for kind in empty)
    if not structure.lines:
        seconds = max(seconds, _INSTRUMENTAL)
    else:
        seconds += _ENDS * (2 - len({"intro", "outro"} & {*empty}))
    return float(min(MAX_SECONDS, max(TRAINED_MIN_SECONDS, 5 * -(-seconds // 5))))


def _language_note(song: Song, structure: Structure) -> str | None:
    shown, given = lyric_language(song.lyrics), song.metadata.language
    if shown is None or shown == given or (shown == "zh" and given == "yue"):
        return None
    name = f"{LANGUAGES[shown]} ({shown})"
    if given is None:
        return f"language: the lyrics are {name}, and the language is left to the model; set it to {shown}"
    return f"language: the lyrics are {name}, but the language is {given}; set it to {shown}"


def _spaces_note(lyrics: str) -> str | None:
    found = _HAN_SPACES.search(lyrics)
    if found is None:
        return None
    line = lyrics.count("\n", 0, found.start()) + 1
    return f"lyrics: line {line} has spaces between Chinese characters, which break the singing; remove the spaces"


def _tag_notes(lyrics: str) -> list[str]:
    notes: list[str] = []
    unknown: dict[str, int] = {}
    tags = ((line, tag) for line, row in enumerate(lyrics.split("\n"), 1) for tag in TAG.finditer(row))
    for line, tag in tags:
        name = section_name(tag[1])
        if not tag[2]:
            notes.append(f"lyrics: the bracket in line {line} is not closed, so its text may be sung; add ]")
        elif len(tag[1]) > LONG_TAG:
            notes.append(f"lyrics: the tag in line {line} is long and may be sung; describe the style in the caption")
        elif not name:
            notes.append(f"lyrics: the tag in line {line} is empty; write a section, such as [Verse]")
        elif not _is_known(name):
            unknown.setdefault(name, line)
    known = [alias for kind, others in KINDS.items() for alias in (kind, *others)]
    for name, line in unknown.items():
        close = get_close_matches(re.sub(r"\W*\d+$", "", name.lower()), known, n=1, cutoff=0.75)
        advice = f"did you mean [{close[0].title()}]?" if close else "a tag that the model does not know may be sung"
        notes.append(f"lyrics: [{name}] in line {line} is no known section; {advice}")
    return notes


def _is_known(name: str) -> bool:
    words = re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", name.lower())
    return kind_of(name) is not None or any(word in _DIRECTIONS for word in words)


def _couplets_note(structure: Structure) -> str | None:
    """Note a tag on almost every couplet: the sections of a song are longer."""
    sung = Counter(line.section for line in structure.lines if line.section is not None).values()
    if len(sung) < 4 or sum(length <= SHORT_SECTION for length in sung) <= 0.75 * len(sung):
        return None
    return (
        f"lyrics: most of the {len(sung)} tags have {SHORT_SECTION} lines or fewer, which makes a song restless; "
        "tag sections of 4 to 8 lines"
    )


def _speed_note(song: Song, structure: Structure) -> str | None:
    seconds = song.metadata.duration
    syllables = sum(count_syllables(line.text) for line in structure.lines)
    raps = "rap" in song.caption.lower() or any(section.kind == "rap" for section in structure.sections)
    fastest = RAPPABLE if raps else SINGABLE
    if seconds is None or syllables <= fastest * seconds:
        return None
    return (
        f"lyrics: about {syllables} syllables in {seconds:g} seconds are more than {fastest:g} a second, so lines will "
        f"be missing; choose a duration of about {estimate_duration(song.lyrics):g} seconds or shorten the lyrics"
    )


def _length_note(song: Song, tokenizer: Tokenizer) -> str | None:
    from ..text.encoder import lyric_warning

    prompt = lyric_prompt(song)
    _, truncation = tokenizer.encode_prompt(prompt)
    return None if truncation is None else lyric_warning(prompt, truncation)
