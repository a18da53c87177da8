"""Tags and lengths of WAV files, which libsndfile does not handle completely."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from .id3 import build_id3, id3_size, parse_id3
from .tags import COMMENT

INFO = {"TITLE": b"INAM", "ARTIST": b"IART", "ALBUM": b"IPRD", COMMENT: b"ICMT"}
MAX_CHUNKS = 1000  # a file of zeros holds millions of empty chunks
MAX_COMMENT = 2**24  # bytes; longer chunks are not ours


def append_tags(file: BinaryIO, fields: Mapping[str, str]) -> None:
    """Append the fields of `Tags.to_fields`: a LIST/INFO chunk, and an ID3 tag for all but the comment.

    libsndfile drops comments longer than a few KB from RIFF files.
    """
    entries = [_chunk(name, fields[field].encode() + b"\0") for field, name in INFO.items() if field in fields]
    chunks = _chunk(b"LIST", b"INFO" + b"".join(entries)) if entries else b""
    others = {name: text for name, text in fields.items() if name != COMMENT}
    chunks += _chunk(b"id3 ", build_id3(others)) if others else b""
    if not chunks:
        return
    end = file.seek(0, os.SEEK_END)
    file.write(chunks)
    file.seek(4)
    file.write((end + len(chunks) - 8).to_bytes(4, "little"))  # RIFF size: the file without its first 8 bytes


def read_fields(path: str | Path) -> dict[str, str]:
    """Return the fields of a RIFF file. Those of its ID3 tag win, but for the comment."""
    info: dict[str, str] = {}
    others: dict[str, str] = {}
    with open(path, "rb") as file:
        for name, size in _chunks(file):
            body = file.read(size) if name in (b"LIST", b"id3 ", b"ID3 ") and size <= MAX_COMMENT else b""
            if name == b"LIST":
                info = {**_info(body), **info}
            elif id3_size(body[:10]):
                others |= parse_id3(body)
    return {**info, **others, **({COMMENT: info[COMMENT]} if COMMENT in info else {})}


def _info(body: bytes) -> dict[str, str]:
    """Return the known entries of a LIST/INFO chunk. Entries of other programs may come first."""
    found: dict[str, str] = {}
    names = {name: field for field, name in INFO.items()}
    entry = 4 if body[:4] == b"INFO" else len(body)
    while entry < len(body):
        length = int.from_bytes(body[entry + 4 : entry + 8], "little")
        if (name := names.get(body[entry : entry + 4])) is not None:
            found.setdefault(name, body[entry + 8 : entry + 8 + length].rstrip(b"\0").decode("utf-8", "replace"))
        entry += 8 + length + length % 2
    return found


def _chunk(name: bytes, body: bytes) -> bytes:
    body += b"\0" * (len(body) % 2)
    return name + len(body).to_bytes(4, "little") + body


def unfinished(path: str | Path) -> mmap.mmap | None:
    """Return the contents of a WAV file whose header says 0 samples, if more follow, else None.

    Programs that write to a pipe cannot fill in the length. In the returned copy the RIFF size is 8, the value that
    libsndfile accepts for such a file. Memory is shared with the file.
    """
    with open(path, "rb") as file:
        total = os.fstat(file.fileno()).st_size
        riff = int.from_bytes(file.read(8)[4:], "little")
        empty = any(name == b"data" and size == 0 for name, size in _chunks(file))
        if not empty or abs(riff + 8 - total) <= 1:
            return None
        contents = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    contents[4:8] = (8).to_bytes(4, "little")
    return contents


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield name and padded size of the chunks of a RIFF file, with the file at the start of their contents."""
    file.seek(12)  # RIFF, size, WAVE
    for _ in range(MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            return
        start, size = file.tell(), int.from_bytes(header[4:], "little")
        size += size % 2
        yield header[:4], size
        file.seek(start + size)
