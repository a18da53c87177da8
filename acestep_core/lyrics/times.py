"""Timed lyrics as plain data: lines, words and sections with their seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import RequestError, shown
from ..files import parse_json
from ..song.song import check_text
from .scores import LyricScore

FORMAT = "acestep-lyric-times"
MISSING = 0.5  # a line is missing if a smaller share of its tokens is found


@dataclass(frozen=True)
class TimedWord:
    """A word with its start and end in seconds. confidence: from 0 to 1, or None if unknown."""

    text: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class TimedLine:
    """A sung line with its start and end in seconds.

    words: none if only the line has times.
    section: index of its section, or None.
    found: share of its tokens that are found, from 0 to 1, or None if unknown.
    confidence: mean of the words' confidences, or None if unknown.
    """

    text: str
    start: float
    end: float
    words: tuple[TimedWord, ...] = ()
    section: int | None = None
    found: float | None = None
    confidence: float | None = None

    @property
    def is_missing(self) -> bool:
        """True if the line is known not to be sung."""
        return self.found is not None and self.found < MISSING


@dataclass(frozen=True)
class TimedSection:
    """A section with its start and end in seconds. name, kind, label: as in `SectionText`."""

    name: str
    kind: str
    label: str
    start: float
    end: float


@dataclass(frozen=True)
class LyricTimes:
    """The times of one take's lyrics.

    duration: of the song, in seconds.
    score: of the take, or None for an instrumental and for times from a file of another format.
    """

    lines: tuple[TimedLine, ...]
    sections: tuple[TimedSection, ...] = ()
    duration: float = 0.0
    score: LyricScore | None = None

    @property
    def missing(self) -> tuple[int, ...]:
        """Indices of the lines that are not sung."""
        return tuple(i for i, line in enumerate(self.lines) if line.is_missing)

    def gaps(self, shortest: float = 4.0) -> tuple[tuple[float, float], ...]:
        """Return the start and end of each part without vocals that lasts at least `shortest` seconds."""
        ends = [0.0, *(line.end for line in self.lines)]
        starts = [*(line.start for line in self.lines), self.duration]
        return tuple((end, start) for end, start in zip(ends, starts, strict=True) if start - end >= shortest)

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON."""
        score = None if self.score is None else {**asdict(self.score), "value": round(self.score.value, 4)}
        content = asdict(self)
        return {"format": FORMAT, **{name: content[name] for name in ("duration", "sections", "lines")}, "score": score}

    def to_json(self) -> str:
        """Return the times as JSON, which keeps all of them."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LyricTimes:
        """Read the result of `to_dict`. Raises RequestError for invalid values."""
        if values.get("format") != FORMAT:
            raise RequestError(f"lyric times: format must be {FORMAT!r}, got {shown(values.get('format'))}")
        sections = tuple(_section(each) for each in _objects(values, "sections"))
        lines = tuple(_line(each, len(sections)) for each in _objects(values, "lines"))
        score = values.get("score")
        if score is not None:
            if not isinstance(score, dict):
                raise RequestError(f"lyric times: score must be an object, got {shown(score)}")
            score = LyricScore(*(_number(score, name) for name in ("coverage", "monotonicity", "confidence")))
        return cls(lines, sections, _number(values, "duration"), score)

    @classmethod
    def from_json(cls, text: str) -> LyricTimes:
        """Read the result of `to_json`. Raises RequestError."""
        try:
            content = parse_json(text)
        except ValueError as error:
            raise RequestError(f"lyric times: not valid JSON: {error}") from error
        if not isinstance(content, dict):
            raise RequestError(f"lyric times: must be a JSON object, got {type(content).__name__}")
        return cls.from_dict(content)


def _section(values: Mapping[str, Any]) -> TimedSection:
    return TimedSection(_text(values, "name"), _text(values, "kind"), _text(values, "label"), *_span(values))


def _line(values: Mapping[str, Any], sections: int) -> TimedLine:
    section = values.get("section")
    if section is not None and (type(section) is not int or not 0 <= section < sections):
        raise RequestError(f"lyric times: section must be an index below {sections} or null, got {shown(section)}")
    words = tuple(
        TimedWord(_text(word, "text"), *_span(word), _optional(word, "confidence"))
        for word in _objects(values, "words")
    )
    shares = _optional(values, "found"), _optional(values, "confidence")
    return TimedLine(_text(values, "text"), *_span(values), words, section, *shares)


def _objects(values: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    given = values.get(name, [])
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, dict) for each in given):
        raise RequestError(f"lyric times: {name} must be a list of objects, got {shown(given)}")
    return given


def _text(values: Mapping[str, Any], name: str) -> str:
    return check_text(values.get(name), f"lyric times: {name}")


def _number(values: Mapping[str, Any], name: str) -> float:
    given = values.get(name)
    if not isinstance(given, (int, float)) or isinstance(given, bool) or not 0 <= given < 10**6:
        raise RequestError(f"lyric times: {name} must be a number from 0 on, got {shown(given)}")
    return float(given)


def _optional(values: Mapping[str, Any], name: str) -> float | None:
    return None if values.get(name) is None else _number(values, name)


def _span(values: Mapping[str, Any]) -> tuple[float, float]:
    start, end = _number(values, "start"), _number(values, "end")
    if end < start:
        raise RequestError(f"lyric times: end must not be before start, got {start:g} and {end:g}")
    return start, end
