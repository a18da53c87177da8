"""The structure of lyrics: sections from tags such as `[Chorus]`, and the lines and words that are sung."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from .scripts import script_of, split_words

# Known sections. The words that other languages have for the same section follow.
KINDS: dict[str, tuple[str, ...]] = {
    "intro": ("opening", "start", "前奏", "イントロ"),
    "verse": ("主歌", "aメロ", "bメロ", "strophe", "estrofa", "couplet", "куплет"),
    "pre-chorus": ("prechorus", "pre chorus", "pre-hook", "导歌", "導歌"),
    "post-chorus": ("postchorus", "post chorus"),
    "chorus": ("hook", "refrain", "副歌", "サビ", "refrán", "estribillo", "ritornello", "припев", "후렴"),
    "bridge": ("middle 8", "middle eight", "桥段", "橋段", "cメロ", "brücke", "puente"),
    "interlude": ("间奏", "間奏"),
    "instrumental": ("inst", "solo", "theme"),
    "break": ("breakdown", "drop", "build", "buildup", "build-up", "climax"),
    "rap": ("说唱", "說唱"),
    "spoken": ("spoken word", "monologue", "narration"),
    "outro": ("ending", "end", "coda", "fade out", "fade-out", "尾奏", "结尾", "アウトロ"),
    "silence": (),
}
_KIND_OF = {name: kind for kind, others in KINDS.items() for name in (kind, *others)}
# Longer names first: a pre-chorus is no chorus.
_KNOWN = re.compile(
    "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in sorted(_KIND_OF, key=len, reverse=True)), re.IGNORECASE
)
TAG = re.compile(r"\[([^\[\]\n]*)(\]|(?=\[|\n|$))")  # an open bracket ends with its line
_DETAIL = re.compile(r"\s[-–—|]\s|[:：,，]")  # separates a section from its style, as in [Chorus - whispered]

_JOINERS = "\u200c\u200d"  # invisible parts of Persian and Indian words and of emoji


@dataclass(frozen=True)
class SectionText:
    """A section of lyrics.

    name: as in the tag, without style and brackets.
    kind: a key of KINDS, or the name in lower case.
    label: the name, with its number among the sections of this kind if there are several.
    place: the start of its tag in the lyrics.
    """

    name: str
    kind: str
    label: str
    place: int


@dataclass(frozen=True)
class SungLine:
    """A line that is sung.

    text: without tags, and with single spaces.
    words: the text of each word and the places of its characters in the lyrics.
    section: index of its section, or None.
    """

    text: str
    words: tuple[tuple[str, tuple[int, ...]], ...]
    section: int | None


@dataclass(frozen=True)
class Structure:
    """The sections and sung lines of lyrics."""

    sections: tuple[SectionText, ...]
    lines: tuple[SungLine, ...]


def kind_of(name: str) -> str | None:
    """Return the known kind of a section's name, such as "chorus" for "Final Chorus 2", or None."""
    match = _KNOWN.search(re.sub(r"(?<=\D)\d+$", "", name))
    return None if match is None else _KIND_OF[match[0].lower()]


def parse_lyrics(lyrics: str) -> Structure:
    """Return the structure of lyrics.

    A tag before the words of a line starts a section. An unknown tag right after another tag describes the same
    section.
    """
    tags: list[tuple[str, int]] = []
    lines: list[SungLine] = []
    for place, row in _rows(lyrics):
        sung, waiting = _sung_places(row, place), []
        first = min(sung, default=place + len(row))
        for tag in TAG.finditer(row):
            name = section_name(tag[1])
            if name and place + tag.start() < first:
                waiting.append((name, place + tag.start()))
        for name, start in waiting:
            is_empty = bool(tags) and not (lines and lines[-1].section == len(tags) - 1)
            if kind_of(name) or not is_empty:
                tags.append((name, start))
        if sung:
            lines.append(_line(lyrics, sung, len(tags) - 1 if tags else None))
    return Structure(_labelled(tags), tuple(lines))


def section_name(tag: str) -> str:
    """Return the name of the section in a tag, without the style after it."""
    return " ".join(_DETAIL.split(tag.strip(), maxsplit=1)[0].split())


def _rows(lyrics: str) -> Iterator[tuple[int, str]]:
    place = 0
    for row in lyrics.split("\n"):
        yield place, row
        place += len(row) + 1


def _sung_places(row: str, place: int) -> list[int]:
    """Return the places of a row's visible characters outside of tags; none if all of them are punctuation."""
    hidden = {i for tag in TAG.finditer(row) for i in range(*tag.span())}
    visible = [i for i, c in enumerate(row) if i not in hidden and (c.isprintable() or c in _JOINERS)]
    if not any(script_of(row[i]) for i in visible):
        return []
    return [place + i for i in visible if not row[i].isspace()]


def _line(lyrics: str, sung: list[int], section: int | None) -> SungLine:
    """Return a line. Spaces and tags between its characters become one space."""
    characters: list[str] = []
    places: list[int] = []
    for before, i in zip([sung[0] - 1, *sung], sung, strict=False):
        if any(character.isspace() or character in "[]" for character in lyrics[before + 1 : i]):
            characters.append(" ")
            places.append(before + 1)
        characters.append(lyrics[i])
        places.append(i)
    text = "".join(characters)
    words = [(text[start:end], tuple(places[start:end])) for start, end in split_words(text)]
    return SungLine(text, tuple(words), section)


def _labelled(tags: list[tuple[str, int]]) -> tuple[SectionText, ...]:
    kinds = [kind_of(name) or name.lower() for name, _ in tags]
    totals, seen = Counter(kinds), Counter[str]()
    sections = []
    for (name, place), kind in zip(tags, kinds, strict=True):
        seen[kind] += 1
        repeated = totals[kind] > 1 and not re.search(r"\d$", name)
        sections.append(SectionText(name, kind, f"{name} {seen[kind]}" if repeated else name, place))
    return tuple(sections)
