"""Vorbis comments, the tags of FLAC and Ogg files, which libsndfile writes only in part."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

FLAC_COMMENTS, FLAC_LAST = 4, 0x80
VORBIS_HEAD, VORBIS, OPUS = b"\x01vorbis", b"\x03vorbis", b"OpusTags"
MAX_BLOCK = 2**24  # bytes, in FLAC; longer ones in Ogg are not tags of a song
CONTINUED = 1  # flag of a page that starts within a packet
NO_PACKET_ENDS = b"\xff" * 8  # position of such a page
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def copy_with_comments(source: BinaryIO, target: BinaryIO, fields: Mapping[str, str]) -> None:
    """Copy a FLAC, Vorbis or Opus file of libsndfile with other fields. Raises ValueError for more than 16 MB."""
    source.seek(0)
    if source.read(4) == b"fLaC":
        _copy_flac(source, target, fields)
    else:
        _copy_ogg(source, target, fields)


def read_comments(file: BinaryIO) -> dict[str, str]:
    """Return the fields of a FLAC or Ogg file. A file without comments has none."""
    file.seek(0)
    if file.read(4) == b"fLaC":
        blocks = (body for kind, body in _flac_blocks(file) if kind == FLAC_COMMENTS)
        return _parse(next(blocks, b""))[1]
    packets = _header_packets(_pages(file))[1]
    return _parse(_without_name(packets[0]))[1] if packets else {}


def _build(vendor: bytes, fields: Mapping[str, str]) -> bytes:
    entries = [f"{name}={value}".encode() for name, value in fields.items()]
    return b"".join([_sized(vendor), len(entries).to_bytes(4, "little"), *map(_sized, entries)])


def _parse(data: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the name of the encoder library, and the fields. Damaged fields are left out."""
    vendor, data = _take(data)
    count, place = int.from_bytes(data[:4], "little"), 4
    fields: dict[str, str] = {}
    for _ in range(min(count, len(data) // 4)):
        size = int.from_bytes(data[place : place + 4], "little")
        entry, place = data[place + 4 : place + 4 + size], place + 4 + size
        name, equals, value = entry.decode("utf-8", "replace").partition("=")
        if equals:
            fields.setdefault(name, value)
    return vendor, fields


# --- FLAC -----------------------------------------------------------------------------------------------------------


def _copy_flac(source: BinaryIO, target: BinaryIO, fields: Mapping[str, str]) -> None:
    blocks = list(_flac_blocks(source))
    vendor = _parse(next((body for kind, body in blocks if kind == FLAC_COMMENTS), b""))[0]
    comments = (FLAC_COMMENTS, _build(vendor, fields))
    if len(comments[1]) >= MAX_BLOCK:
        raise ValueError(f"tags have {len(comments[1])} bytes, a FLAC file holds {MAX_BLOCK - 1}")
    blocks = [blocks[0], comments, *(block for block in blocks[1:] if block[0] != FLAC_COMMENTS)]
    target.write(b"fLaC")
    for place, (kind, body) in enumerate(blocks, 1):
        last = FLAC_LAST if place == len(blocks) else 0
        target.write(bytes([kind | last]) + len(body).to_bytes(3, "big") + body)
    shutil.copyfileobj(source, target, 2**20)


def _flac_blocks(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield kind and body of each block behind the file's first 4 bytes."""
    while len(header := file.read(4)) == 4:
        yield header[0] & ~FLAC_LAST, file.read(int.from_bytes(header[1:], "big"))
        if header[0] & FLAC_LAST:
            return


# --- Ogg ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Page:
    """A page of an Ogg file. `lengths` are those of its segments; one below 255 ends a packet."""

    flags: int
    position: bytes
    stream: bytes
    lengths: bytes
    body: bytes

    def to_bytes(self, number: int) -> bytes:
        start = b"OggS\0" + bytes([self.flags]) + self.position + self.stream + number.to_bytes(4, "little")
        end = bytes([len(self.lengths)]) + self.lengths + self.body
        return start + _checksum(start + bytes(4) + end).to_bytes(4, "little") + end


def _copy_ogg(source: BinaryIO, target: BinaryIO, fields: Mapping[str, str]) -> None:
    pages = _pages(source)
    first, packets = _header_packets(pages)
    vendor = _parse(_without_name(packets[0]))[0]
    comments = _build(vendor, fields)
    is_vorbis = packets[0].startswith(VORBIS)
    packets[0] = VORBIS + comments + b"\1" if is_vorbis else OPUS + comments
    for number, page in enumerate(chain([first], _paged(first, packets), pages)):
        target.write(page.to_bytes(number))


def _pages(file: BinaryIO) -> Iterator[_Page]:
    file.seek(0)
    while len(header := file.read(27)) == 27 and header[:4] == b"OggS":
        lengths = file.read(header[26])
        yield _Page(header[5], header[6:14], header[14:18], lengths, file.read(sum(lengths)))


def _header_packets(pages: Iterator[_Page]) -> tuple[_Page, list[bytes]]:
    """Return the first page, and the packets between it and the audio: the comments, and for Vorbis the codebooks."""
    first = next(pages, _Page(0, bytes(8), bytes(4), b"", b""))
    missing, total = 2 if first.body.startswith(VORBIS_HEAD) else 1, 0
    packets: list[bytes] = []
    packet = bytearray()
    for page in pages:
        place = 0
        for length in page.lengths:
            packet += page.body[place : place + length]
            place += length
            if length < 255:
                packets.append(bytes(packet))
                packet.clear()
        total += len(page.body)
        if len(packets) >= missing or total > MAX_BLOCK:
            break
    return first, packets[:missing]


def _paged(first: _Page, packets: list[bytes]) -> Iterator[_Page]:
    lengths = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    body, flags = b"".join(packets), 0
    for start in range(0, len(lengths), 255):
        part = lengths[start : start + 255]
        size = sum(part)
        position = NO_PACKET_ENDS if min(part) == 255 else bytes(8)
        yield _Page(flags, position, first.stream, part, body[:size])
        body, flags = body[size:], CONTINUED if part[-1] == 255 else 0


def _without_name(packet: bytes) -> bytes:
    return packet[next((len(name) for name in (VORBIS, OPUS) if packet.startswith(name)), len(packet)) :]


def _checksum(page: bytes) -> int:
    """Return Ogg's CRC-32: that of zlib with mirrored bits, from 0 and without a final inversion."""
    mirrored = zlib.crc32(page.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def _take(data: bytes) -> tuple[bytes, bytes]:
    """Return the text that starts with its length, and all that follows."""
    end = 4 + int.from_bytes(data[:4], "little")
    return data[4:end], data[end:]
