"""AAC in M4A files, which libsndfile does not know, through PyAV. PyAV comes with ComfyUI and is optional here."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import RequestError
from .tags import COMMENT, LANGUAGE, LYRICS, PLAIN_LYRICS, timed_lines

if TYPE_CHECKING:
    import torch

SUFFIX = ".m4a"
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)  # Hz
BIT_RATE = 256_000
BLOCK = 65_536  # samples per frame given to the encoder
FIELDS = {"TITLE": "title", "ARTIST": "artist", "ALBUM": "album", COMMENT: "comment", LYRICS: "lyrics", "BPM": "tmpo"}
ATOMS = {
    b"\xa9nam": "TITLE",
    b"\xa9ART": "ARTIST",
    b"\xa9alb": "ALBUM",
    b"\xa9cmt": COMMENT,
    b"\xa9lyr": LYRICS,
    b"tmpo": "BPM",
}
MAX_MOVIE = 2**25  # bytes of the part with the tags


def check_pyav(path: str | Path) -> None:
    """Raise RequestError if PyAV is not installed."""
    if importlib.util.find_spec("av") is None:
        raise RequestError(f"{path}: M4A needs the package av; run pip install av, or choose another format")


def is_m4a(head: bytes) -> bool:
    """Return True if these are the first 12 bytes of an MP4 or M4A file."""
    return head[4:8] == b"ftyp"


def write_m4a(output: BinaryIO, samples: torch.Tensor, sample_rate: int, fields: Mapping[str, str]) -> list[str]:
    """Write `[samples, channels]` with the fields that an M4A file has a place for. Return the names of the others.

    Raises RequestError and OSError.
    """
    import av

    if sample_rate not in RATES or samples.shape[1] > 2:
        raise RequestError(f"M4A takes 1 or 2 channels of {', '.join(map(str, RATES))} Hz, got {sample_rate} Hz")
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    values, left_out = _metadata(fields)
    try:
        with av.open(output, "w", format="ipod") as file:
            file.metadata.update(values)
            stream = file.add_stream("aac", rate=sample_rate, layout=layout)
            stream.bit_rate = BIT_RATE
            if LANGUAGE in fields:
                stream.metadata["language"] = fields[LANGUAGE]
            for start in range(0, len(samples), BLOCK):
                block = samples[start : start + BLOCK].to("cpu").float().clamp(-1, 1).T.contiguous()
                frame = av.AudioFrame.from_ndarray(block.numpy(), format="fltp", layout=layout)
                frame.sample_rate, frame.pts = sample_rate, start
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        raise RequestError(f"M4A cannot be written: {error}") from error
    return left_out


def read_m4a(file: BinaryIO) -> dict[str, str]:
    """Return the fields of an M4A file, named as in `Tags.to_fields`. Needs no PyAV. Damaged atoms are left out."""
    file.seek(0)
    movie = b""
    while len(header := file.read(8)) == 8 and not movie:
        size = int.from_bytes(header[:4], "big")
        if size == 1:  # the length follows in 8 bytes
            size, header = int.from_bytes(file.read(8), "big"), header + bytes(8)
        if size < len(header):
            break
        if header[4:8] == b"moov":
            movie = file.read(min(size - len(header), MAX_MOVIE))
        else:
            file.seek(size - len(header), os.SEEK_CUR)
    fields: dict[str, str] = {}
    for name, body in _atoms(_inside(movie, b"udta", b"meta")[4:], b"ilst"):
        value = _inside(body, b"data")[8:]  # behind its type and locale
        if name in ATOMS and value:
            is_number = name == b"tmpo"
            fields[ATOMS[name]] = str(int.from_bytes(value, "big")) if is_number else value.decode("utf-8", "replace")
    media = _inside(movie, b"trak", b"mdia", b"mdhd")
    place = 32 if media[:1] == b"\1" else 20
    letters = int.from_bytes(media[place : place + 2], "big")
    language = "".join(chr(0x60 + (letters >> shift & 31)) for shift in (10, 5, 0))
    return fields if language == "und" or not language.isalpha() else {**fields, LANGUAGE: language}


def _atoms(data: bytes, *path: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and body of each atom inside the atom at this path."""
    data = _inside(data, *path)
    place = 0
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if size < 8:
            return
        yield data[place + 4 : place + 8], data[place + 8 : place + size]
        place += size


def _inside(data: bytes, *path: bytes) -> bytes:
    """Return the body of the first atom at this path, empty if there is none."""
    for name in path:
        data = next((body for found, body in _atoms(data) if found == name), b"")
    return data


def _metadata(fields: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    fields = dict(fields)
    left_out = [] if not timed_lines(fields.get(LYRICS, "")) else ["the times of the lyrics"]
    if left_out:
        timed = "".join(text for _, text in timed_lines(fields[LYRICS]))
        fields[LYRICS] = fields.pop(PLAIN_LYRICS, timed)
    left_out += [name for name in fields if name not in FIELDS and name != LANGUAGE]
    return {FIELDS[name]: text for name, text in fields.items() if name in FIELDS}, left_out
