"""The tags of a song for players: title, lyrics with times, BPM. One set of fields for all formats.

A field has the name that it has in FLAC and Ogg. The other formats translate these names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import RequestError

MAX_BYTES = 8 * 2**20  # of all tags
NAMES = {"title": "TITLE", "artist": "ARTIST", "album": "ALBUM", "bpm": "BPM"}
COMMENT, LYRICS, PLAIN_LYRICS, KEY, LANGUAGE = "COMMENT", "LYRICS", "UNSYNCEDLYRICS", "INITIALKEY", "LANGUAGE"
SETTINGS = '{"acestep":'  # the start of a comment that holds settings
_KEY = re.compile(r"([A-G][#b]?)( major| minor)")
_SHORT_KEY = re.compile(r"([A-G][#b]?)(m?)")
_EXTRA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ -]{0,63}")
_TIME = re.compile(r"\[(\d{1,4}):(\d{1,2}(?:\.\d{1,3})?)\]")
_WORD_TIME = re.compile(r"<(\d{1,4}):(\d{1,2}(?:\.\d{1,3})?)>")


@dataclass(frozen=True)
class Tags:
    """Tags of an audio file. Empty ones are not written.

    lyrics: plain text.
    timed_lyrics: LRC, lines such as `[01:23.45]text`, also with a time `<01:23.90>` before each word.
    bpm: a whole number from 1 to 999.
    key: such as "C# minor".
    language: code of the lyrics, such as "en".
    comment: plain text. A file with settings has no other comment.
    extra: texts by name, such as ComfyUI's `prompt` and `workflow`.

    Line ends become `\\n`. Raises RequestError for other values, for NUL and for invalid Unicode.
    """

    title: str = ""
    artist: str = ""
    album: str = ""
    lyrics: str = ""
    timed_lyrics: str = ""
    bpm: int | None = None
    key: str | None = None
    language: str | None = None
    comment: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("title", "artist", "album", "lyrics", "timed_lyrics", "comment"):
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
        if self.timed_lyrics and not timed_lines(self.timed_lyrics):
            raise RequestError(
                f"timed_lyrics must be LRC, lines such as [01:23.45]text; got {self.timed_lyrics[:40]!r} without a time"
            )
        if self.bpm is not None and (type(self.bpm) is not int or not 1 <= self.bpm <= 999):
            raise RequestError(f"bpm must be a whole number from 1 to 999, got {self.bpm!r:.40}")
        if self.key is not None and not (isinstance(self.key, str) and _KEY.fullmatch(self.key)):
            raise RequestError(f"key must be a note with major or minor, such as 'C# minor', got {self.key!r:.40}")
        if self.language is not None and not (isinstance(self.language, str) and _is_language(self.language)):
            raise RequestError(f"language must be a code of two or three letters, got {self.language!r:.40}")
        for name, value in self.extra.items():
            if not isinstance(name, str) or not _EXTRA_NAME.fullmatch(name) or name.upper() in _RESERVED:
                raise RequestError(f"extra: {name!r:.80} is not allowed as the name of a tag; use letters and digits")
            _checked(name, value)
        size = sum(len(text.encode()) for text in self.to_fields().values())
        if size > MAX_BYTES:
            raise RequestError(f"tags are {size} bytes; a file holds at most {MAX_BYTES}")

    def __bool__(self) -> bool:
        return self != Tags()

    def to_fields(self) -> dict[str, str]:
        """Return texts by field name, as FLAC and Ogg store them."""
        values: dict[str, object] = {field: getattr(self, name) for name, field in NAMES.items()}
        if self.timed_lyrics:
            values |= {LYRICS: self.timed_lyrics, PLAIN_LYRICS: self.lyrics}
        else:
            values[LYRICS] = self.lyrics
        if self.key is not None:
            note, mode = self.key.split()
            values[KEY] = note + ("m" if mode == "minor" else "")
        values[LANGUAGE] = None if self.language is None else THREE_LETTERS.get(self.language, self.language)
        values[COMMENT] = self.comment
        return {name: str(value) for name, value in {**values, **self.extra}.items() if value not in (None, "")}

    @classmethod
    def from_fields(cls, values: Mapping[str, str]) -> Tags:
        """Read the fields of a file. Values that other programs wrote in another form are left out."""
        fields_by_name = {name.upper(): value for name, value in values.items()}
        known: dict[str, object] = {
            name: fields_by_name[field] for name, field in NAMES.items() if field in fields_by_name
        }
        bpm = fields_by_name.get("BPM", "").partition(".")[0]
        known["bpm"] = int(bpm) if bpm.isascii() and bpm.isdigit() and len(bpm) < 4 else None
        lyrics, plain = fields_by_name.get(LYRICS, ""), fields_by_name.get(PLAIN_LYRICS, "")
        known["timed_lyrics"], known["lyrics"] = (lyrics, plain) if timed_lines(lyrics) else ("", lyrics or plain)
        if match := _SHORT_KEY.fullmatch(fields_by_name.get(KEY, "")):
            known["key"] = f"{match[1]} {'minor' if match[2] else 'major'}"
        language = fields_by_name.get(LANGUAGE, "").lower()
        known["language"] = TWO_LETTERS.get(language, language) or None
        comment = fields_by_name.get(COMMENT, "")
        known["comment"] = "" if comment.startswith(SETTINGS) else comment
        known["extra"] = {name: value for name, value in values.items() if name.upper() not in _RESERVED}
        good = {}
        for name, value in known.items():
            try:
                cls(**{name: value})  # type: ignore[arg-type]
                good[name] = value
            except RequestError:
                continue
        return cls(**good)  # type: ignore[arg-type]


def timed_lines(lrc: str) -> list[tuple[int, str]]:
    """Return milliseconds and text of each line of LRC, and of each word that has a time, in order of time.

    The text of a new line starts with `\\n`, except in the first entry.
    """
    entries: list[tuple[int, str]] = []
    for line in lrc.split("\n"):
        times, place = [], len(line) - len(line.lstrip())
        while match := _TIME.match(line, place):
            times.append(_milliseconds(match))
            place = match.end()
        rest = line[place:]
        words = list(_WORD_TIME.finditer(rest)) if times else []
        if not words:
            entries += [(time, "\n" + rest.strip()) for time in times]
            continue
        ends = [match.start() for match in words[1:]] + [len(rest)]
        pieces = [(_milliseconds(match), rest[match.end() : end]) for match, end in zip(words, ends, strict=True)]
        before = rest[: words[0].start()].lstrip()
        pieces = [(times[0], before), *pieces] if before else pieces
        entries += [(pieces[0][0], "\n" + pieces[0][1]), *pieces[1:]]
    entries.sort(key=lambda entry: entry[0])
    return [(time, text.removeprefix("\n") if i == 0 else text) for i, (time, text) in enumerate(entries)]


def lrc_text(entries: list[tuple[int, str]]) -> str:
    """Return LRC of the entries of `timed_lines`."""
    lines: list[str] = []
    for time, text in entries:
        minutes, rest = divmod(time, 60_000)
        stamp = f"{minutes:02d}:{rest / 1000:06.3f}" if rest % 10 else f"{minutes:02d}:{rest / 1000:05.2f}"
        if text.startswith("\n") or not lines:
            lines.append(f"[{stamp}]{text.removeprefix(chr(10))}")
        else:
            lines[-1] += f"<{stamp}>{text}"
    return "\n".join(lines)


def _milliseconds(match: re.Match[str]) -> int:
    return int(match[1]) * 60_000 + round(float(match[2]) * 1000)


def _is_language(code: str) -> bool:
    return code in THREE_LETTERS or (len(code) in (2, 3) and code.isascii() and code.isalpha() and code.islower())


def _checked(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text, got {type(value).__name__}")
    if "\0" in value:
        raise RequestError(f"{name} must not contain NUL characters, which end a text in audio files")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(f"{name} must be valid Unicode, got a lone surrogate at position {error.start}") from None
    return value.replace("\r\n", "\n").replace("\r", "\n")


# ISO 639-2/T codes of the languages that the model knows. ID3 has no others.
_ISO = """
ar ara az aze bg bul bn ben ca cat cs ces da dan de deu el ell en eng es spa fa fas fi fin fr fra he heb hi hin
hr hrv ht hat hu hun id ind is isl it ita ja jpn ko kor la lat lt lit ms msa ne nep nl nld no nor pa pan pl pol pt por
ro ron ru rus sa san sk slk sr srp sv swe sw swa ta tam te tel th tha tl tgl tr tur uk ukr ur urd vi vie zh zho
yue yue unknown und"""
THREE_LETTERS = dict(zip(_ISO.split()[::2], _ISO.split()[1::2], strict=True))
TWO_LETTERS = {three: two for two, three in THREE_LETTERS.items()}
_RESERVED = {*NAMES.values(), COMMENT, LYRICS, PLAIN_LYRICS, KEY, LANGUAGE, "ENCODER"}
