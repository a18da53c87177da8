"""The formats of timed lyrics: JSON, LRC, LRC with word times, SRT and WebVTT.

JSON keeps everything. The others have lines alone, and the times of words in "elrc".
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import RequestError
from ..files import write_text
from .times import LyricTimes, TimedLine, TimedWord

SUFFIXES = {"json": ".lyrics.json", "lrc": ".lrc", "elrc": ".lrc", "srt": ".srt", "vtt": ".vtt"}
SILENCE = 2.0  # seconds without vocals after which an LRC clears its line
WORD_PAUSE = 0.5  # seconds between words after which an LRC with word times ends the word

_CLOCK = r"(\d{1,4}):(\d{1,2}(?:[.:]\d{1,3})?)"
_STAMP = re.compile(rf"\[{_CLOCK}\]")
_WORD_STAMP = re.compile(rf"<{_CLOCK}>")
_STAMPED = re.compile(rf"\s*((?:\[{_CLOCK}\]\s*)+)(.*)")
_HEADER = re.compile(r"\s*\[(length|offset)\s*:\s*([-+:.\d]+)\s*\]\s*", re.IGNORECASE)
_CUE_TIME = r"(?:(\d{1,3}):)?(\d{1,3}):(\d{1,2})[,.](\d{3})"
_CUE = re.compile(rf"\s*{_CUE_TIME}\s*-->\s*{_CUE_TIME}(?:\s.*)?")
_JOINERS = "\u200c\u200d"


def format_times(times: LyricTimes, format: str, title: str = "", artist: str = "") -> str:
    """Return times as a text.

    format: a key of SUFFIXES.
    title, artist: for the head of an LRC.

    Raises RequestError for another format.
    """
    if format == "json":
        return times.to_json()
    times = replace(times, lines=tuple(line for line in map(_printable, times.lines) if line.text))
    if format in ("lrc", "elrc"):
        return _lrc(times, format == "elrc", title, artist)
    cues = list(_cues(times.lines))
    if format == "srt":
        blocks = [f"{i}\n{_clock(a, ',')} --> {_clock(b, ',')}\n{text}\n" for i, (a, b, text) in enumerate(cues, 1)]
        return "\n".join(blocks)
    if format == "vtt":
        blocks = [f"{_clock(a, '.')} --> {_clock(b, '.')}\n{html.escape(text, False)}\n" for a, b, text in cues]
        return "\n".join(["WEBVTT\n", *blocks])
    raise RequestError(f"format {format!r} of lyric times is unknown; choose {', '.join(SUFFIXES)}")


def parse_times(text: str) -> LyricTimes:
    """Read times in any of the formats. Raises RequestError."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if text.lstrip().startswith("{"):
        return LyricTimes.from_json(text)
    is_vtt = text.startswith("WEBVTT")
    rows = text.split("\n")
    times = _parse_cues(rows, is_vtt) if is_vtt or any(map(_CUE.fullmatch, rows)) else _parse_lrc(rows)
    if not times.lines and not is_vtt:
        raise RequestError("lyric times: no times found; allowed are JSON, LRC, SRT and WebVTT")
    return times


def check_formats(text: str) -> tuple[str, ...]:
    """Return the formats in a list such as "lrc, srt". Raises RequestError for an unknown one or two of one file."""
    names = tuple(dict.fromkeys(re.findall(r"[^\s,]+", text.lower())))
    for name in names:
        if name not in SUFFIXES:
            raise RequestError(f"format {name!r} of lyric times is unknown; choose {', '.join(SUFFIXES)}")
    if {"lrc", "elrc"} <= {*names}:
        raise RequestError("formats: lrc and elrc have the same file name; choose one of them")
    return names


def write_times(song: str | Path, times: LyricTimes, formats: Iterable[str]) -> tuple[Path, ...]:
    """Write times beside a song, with its base name, and return the paths. Raises RequestError."""
    files = {Path(song).with_suffix(SUFFIXES[name]): name for name in check_formats(",".join(formats))}
    for path, name in files.items():
        write_text(path, format_times(times, name))
    return tuple(files)


def _printable(line: TimedLine) -> TimedLine:
    """Return a line whose texts have no control characters, line ends and repeated spaces."""
    words = (replace(word, text=_clean(word.text)) for word in line.words)
    return replace(line, text=_clean(line.text), words=tuple(word for word in words if word.text))


def _clean(text: str) -> str:
    return " ".join("".join(c if c.isprintable() or c in _JOINERS else " " for c in text).split())


# --- LRC ------------------------------------------------------------------------------------------------------------


def _lrc(times: LyricTimes, with_words: bool, title: str, artist: str) -> str:
    tags = {"ti": _clean(title), "ar": _clean(artist), "length": _stamp(times.duration).partition(".")[0]}
    rows = [f"[{name}:{value.replace(']', ')')}]" for name, value in tags.items() if value]
    following = [*(line.start for line in times.lines[1:]), float("inf")]
    for line, start in zip(times.lines, following, strict=False):
        text = _with_word_times(line) if with_words and line.words else _disarmed(line.text)
        rows.append(f"[{_stamp(line.start)}]{text}")
        if start - line.end >= SILENCE:
            rows.append(f"[{_stamp(line.end)}]")
    return "\n".join([*rows, ""])


def _stamp(seconds: float) -> str:
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    return f"{minutes:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}"


def _disarmed(text: str) -> str:
    """Return a text in which nothing looks like a time."""
    text = _STAMP.sub(lambda match: f"［{match[0][1:-1]}］", text)
    return _WORD_STAMP.sub(lambda match: f"＜{match[0][1:-1]}＞", text)


def _with_word_times(line: TimedLine) -> str:
    row, place = "", 0
    starts = [word.start for word in line.words[1:]]
    for word, start in zip(line.words, [*starts, None], strict=True):
        found = line.text.find(word.text, place)
        if found >= 0:
            row += " " * (found > place > 0)
            place = found + len(word.text)
        else:
            row += " " * bool(row)
        row += f"<{_stamp(word.start)}>{_disarmed(word.text)}"
        if start is not None and start - word.end >= WORD_PAUSE:
            row += f"<{_stamp(word.end)}>"
    return f"{row}<{_stamp(line.end)}>"


def _parse_lrc(rows: Sequence[str]) -> LyricTimes:
    length = offset = 0.0
    entries: list[tuple[float, str]] = []
    for row in rows:
        if header := _HEADER.fullmatch(row):
            if header[1].lower() == "offset":
                offset = _number(header[2]) / 1000
            elif clock := re.fullmatch(_CLOCK, header[2]):
                length = _seconds(*clock.groups())
        elif stamped := _STAMPED.fullmatch(row):
            entries += [(_seconds(*clock), stamped[4].strip()) for clock in _STAMP.findall(stamped[1])]
    entries.sort(key=lambda entry: entry[0])
    ends = [*(start for start, _ in entries[1:]), length]
    lines = [_parse_line(text, start, end) for (start, text), end in zip(entries, ends, strict=False) if text]
    lines = [_shifted(line, -offset) for line in lines]
    return LyricTimes(tuple(lines), (), max([length, *(line.end for line in lines)]))


def _parse_line(text: str, start: float, end: float) -> TimedLine:
    end = max(start, end)
    first, *parts = _WORD_STAMP.split(text)
    if not parts:
        return TimedLine(text, start, end)
    stamps = [max(start, _seconds(*clock)) for clock in zip(parts[::3], parts[1::3], strict=True)]
    words = []
    for word, begin, after in zip(parts[2::3], stamps, [*stamps[1:], end], strict=True):
        if word.strip():
            words.append(TimedWord(word.strip(), begin, max(begin, after)))
    end = max([start, stamps[-1]]) if not parts[-1].strip() else end
    return TimedLine(" ".join((first + "".join(parts[2::3])).split()), start, end, tuple(words))


def _shifted(line: TimedLine, seconds: float) -> TimedLine:
    def shift(time: float) -> float:
        return round(max(0.0, time + seconds), 3)

    words = tuple(replace(word, start=shift(word.start), end=shift(word.end)) for word in line.words)
    return replace(line, start=shift(line.start), end=shift(line.end), words=words)


def _seconds(minutes: str, seconds: str) -> float:
    return round(60 * int(minutes) + float(seconds.replace(":", ".")), 3)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


# --- SRT and WebVTT -------------------------------------------------------------------------------------------------


def _cues(lines: Sequence[TimedLine]) -> Iterable[tuple[int, int, str]]:
    """Yield start and end in milliseconds and the text. A cue of no length is not allowed."""
    for line in lines:
        start = round(1000 * line.start)
        yield start, max(start + 1, round(1000 * line.end)), line.text


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


def _parse_cues(rows: Sequence[str], is_vtt: bool) -> LyricTimes:
    lines: list[TimedLine] = []
    remaining = iter(rows)
    for row in remaining:
        cue = _CUE.fullmatch(row)
        if cue is None:
            continue
        texts = []
        for text in remaining:
            if not text.strip():
                break
            texts.append(text)
        text = " ".join(" ".join(texts).split())
        text = html.unescape(re.sub(r"<[^>]*>", "", text)) if is_vtt else text
        start, end = _cue_seconds(cue.groups()[:4]), _cue_seconds(cue.groups()[4:])
        if text:
            lines.append(TimedLine(text, start, max(start, end)))
    lines.sort(key=lambda line: line.start)
    return LyricTimes(tuple(lines), (), max((line.end for line in lines), default=0.0))


def _cue_seconds(clock: Sequence[str | None]) -> float:
    hours, minutes, seconds, milliseconds = (int(part or 0) for part in clock)
    return 3600 * hours + 60 * minutes + seconds + milliseconds / 1000
