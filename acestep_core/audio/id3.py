"""ID3v2.4 tags of MP3 and WAV files, also read in versions 2.2 and 2.3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .tags import COMMENT, KEY, LANGUAGE, LYRICS, PLAIN_LYRICS, lrc_text, timed_lines

TEXT_FRAMES = {"TITLE": "TIT2", "ARTIST": "TPE1", "ALBUM": "TALB", "BPM": "TBPM", KEY: "TKEY", LANGUAGE: "TLAN"}
FIELDS = {frame: name for name, frame in TEXT_FRAMES.items()}
OLD_FRAMES = {  # of ID3v2.2
    "TT2": "TIT2", "TP1": "TPE1", "TAL": "TALB", "TBP": "TBPM", "TKE": "TKEY", "TLA": "TLAN", "COM": "COMM",
    "ULT": "USLT", "SLT": "SYLT", "TXX": "TXXX",
}  # fmt: skip
ENCODINGS = ("latin-1", "utf-16", "utf-16-be", "utf-8")
UTF_8 = b"\3"
MILLISECONDS, IS_LYRICS = b"\2", b"\1"


def build_id3(fields: Mapping[str, str]) -> bytes:
    """Return an ID3v2.4 tag with these fields, named as in `Tags.to_fields`."""
    language = fields.get(LANGUAGE, "und").encode("ascii")[:3]
    timed, plain = fields.get(LYRICS, ""), fields.get(PLAIN_LYRICS, "")
    entries = timed_lines(timed)
    plain = plain if entries else timed or plain
    frames = []
    for name, value in fields.items():
        text = value.encode("utf-8")
        if name in TEXT_FRAMES:
            frames.append(_frame(TEXT_FRAMES[name], UTF_8 + text))
        elif name == COMMENT:
            frames.append(_frame("COMM", UTF_8 + b"eng\0" + text))
        elif name not in (LYRICS, PLAIN_LYRICS):
            # ComfyUI's page finds a graph by the NUL that ends its text.
            frames.append(_frame("TXXX", UTF_8 + name.encode("utf-8") + b"\0" + text + b"\0"))
    if plain:
        frames.append(_frame("USLT", UTF_8 + language + b"\0" + plain.encode("utf-8")))
    if entries:
        lines = b"".join(text.encode("utf-8") + b"\0" + time.to_bytes(4, "big") for time, text in entries)
        frames.append(_frame("SYLT", UTF_8 + language + MILLISECONDS + IS_LYRICS + b"\0" + lines))
    body = b"".join(frames)
    return b"ID3\4\0\0" + _to_syncsafe(len(body)) + body


def id3_size(head: bytes) -> int:
    """Return the size of the ID3v2 tag that starts with these 10 bytes, 0 if it is none."""
    if len(head) < 10 or head[:3] != b"ID3" or head[3] not in (2, 3, 4):
        return 0
    return 10 + _from_syncsafe(head[6:10]) + (10 if head[5] & 0x10 else 0)


def parse_id3(tag: bytes) -> dict[str, str]:
    """Return the fields of an ID3v2 tag, named as in `Tags.to_fields`. Damaged frames are left out."""
    found: dict[str, str] = {}
    timed = ""
    for frame, body in _frames(tag):
        encoding = ENCODINGS[body[0]] if body and body[0] < len(ENCODINGS) else "latin-1"
        if frame in FIELDS:
            found.setdefault(FIELDS[frame], _decode(body[1:], encoding).partition("\0")[0])
        elif frame == "TXXX":
            name, value = _split(body[1:], encoding)
            found.setdefault(name, value)
        elif frame in ("COMM", "USLT"):
            _, value = _split(body[4:], encoding)
            found.setdefault(COMMENT if frame == "COMM" else PLAIN_LYRICS, value)
        elif frame == "SYLT" and body[4:5] == MILLISECONDS:
            timed = timed or lrc_text(list(_timed_entries(body[6:], encoding)))
    if timed:
        found[LYRICS] = timed
    elif PLAIN_LYRICS in found:
        found[LYRICS] = found.pop(PLAIN_LYRICS)
    return found


def _frame(name: str, body: bytes) -> bytes:
    return name.encode("ascii") + _to_syncsafe(len(body)) + b"\0\0" + body


def _frames(tag: bytes) -> Iterator[tuple[str, bytes]]:
    version, flags = tag[3], tag[5]
    body = tag[10:]
    if version < 4 and flags & 0x80:
        body = body.replace(b"\xff\0", b"\xff")
    if flags & 0x40 and version > 2:  # an extended header, whose size includes itself in version 2.4 alone
        body = body[_from_syncsafe(body[:4]) if version == 4 else 4 + int.from_bytes(body[:4], "big") :]
    name_size, header = (3, 6) if version == 2 else (4, 10)
    while len(body) > header and body[0]:
        name = body[:name_size].decode("latin-1")
        digits = body[name_size : 2 * name_size]
        size = _from_syncsafe(digits) if version == 4 else int.from_bytes(digits, "big")
        content, body = body[header : header + size], body[header + size :] if size else b""
        yield OLD_FRAMES.get(name, name), content


def _timed_entries(data: bytes, encoding: str) -> Iterator[tuple[int, str]]:
    _, data = _cut(data, encoding)  # the description
    while data:
        text, data = _cut(data, encoding)
        if len(data) < 4:
            return
        yield int.from_bytes(data[:4], "big"), _decode(text, encoding)
        data = data[4:]


def _split(data: bytes, encoding: str) -> tuple[str, str]:
    name, value = _cut(data, encoding)
    return _decode(name, encoding), _decode(value, encoding).rstrip("\0")


def _cut(data: bytes, encoding: str) -> tuple[bytes, bytes]:
    """Return what is before and after the first NUL character."""
    if not encoding.startswith("utf-16"):
        first, _, rest = data.partition(b"\0")
        return first, rest
    for place in range(0, len(data) - 1, 2):
        if data[place : place + 2] == b"\0\0":
            return data[:place], data[place + 2 :]
    return data, b""


def _decode(data: bytes, encoding: str) -> str:
    return data.decode(encoding, "replace")


def _to_syncsafe(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def _from_syncsafe(digits: bytes) -> int:
    return sum((digit & 0x7F) << shift for digit, shift in zip(digits, (21, 14, 7, 0), strict=False))
