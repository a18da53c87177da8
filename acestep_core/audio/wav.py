"""Comments and lengths of WAV files, which libsndfile does not handle completely."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_CHUNKS = 1000  # a file of zeros holds millions of empty chunks
MAX_COMMENT = 2**24  # bytes; longer chunks are not ours


def append_comment(file: BinaryIO, comment: str) -> None:
    """Append a LIST/INFO chunk with an ICMT entry. libsndfile drops comments longer than a few KB from RIFF files."""
    text = comment.encode("ascii") + b"\0"
    text += b"\0" * (len(text) % 2)
    entry = b"INFOICMT" + len(text).to_bytes(4, "little") + text
    end = file.seek(0, os.SEEK_END)
    file.write(b"LIST" + len(entry).to_bytes(4, "little") + entry)
    file.seek(4)
    file.write((end + len(entry)).to_bytes(4, "little"))  # RIFF size: the file without its first 8 bytes


def read_comment(path: str | Path) -> str:
    """Return the ICMT entry of a RIFF file's LIST/INFO chunk, or an empty string."""
    with open(path, "rb") as file:
        for name, size in _chunks(file):
            body = file.read(size) if name == b"LIST" and size <= MAX_COMMENT else b""
            entry = 4 if body[:4] == b"INFO" else len(body)
            while entry < len(body):  # entries of other programs may come first
                length = int.from_bytes(body[entry + 4 : entry + 8], "little")
                if body[entry : entry + 4] == b"ICMT":
                    return body[entry + 8 : entry + 8 + length].rstrip(b"\0").decode("ascii", "replace")
                entry += 8 + length + length % 2
    return ""


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
