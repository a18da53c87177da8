"""Read the headers of GGUF files of ACE-Step 1.5, as acestep.cpp writes them: settings, tokenizer, places of tensors.

The format is that of ggml, version 2 and 3. Names of tensors are those of the original checkpoint. Reading a header
needs no other package.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, first_line, shown
from .catalog import Kind

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ARCHITECTURE, CONFIG = "general.architecture", "acestep.config_json"
TOKENS, MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
KINDS = {
    "acestep-dit": Kind.NETWORK,
    "acestep-lm": Kind.PLANNER,
    "acestep-text-enc": Kind.TEXT_ENCODER,
    "acestep-vae": Kind.VAE,
}
# Name, values in a block and bytes of a block, by ggml's number of the type.
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
}
QUANTISED = frozenset(name for name, values, _ in TYPES.values() if values > 1)

_MAX_HEADER = 32_000_000  # bytes; that of a planner with its tokenizer has 6 million
_MAX_AXES, _MAX_NAME, _MAX_VALUES = 4, 200, 2**40
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
# ggml drops leading axes of one, which these tensors have.
_THREE_AXES = ("scale_shift_table", "null_condition_emb", "special_token", "special_tokens", "silence_latent")


@dataclass(frozen=True)
class StoredTensor:
    """One tensor: `size` bytes at offset `start`. `dtype` is a name in TYPES."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def is_gguf(path: Path) -> bool:
    """Return True if `path` is a file that starts as GGUF does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def gguf_kind(path: Path) -> Kind | None:
    """Return what a GGUF file holds by its architecture. None if it is another model's or unreadable."""
    try:
        with _opened(path) as cursor:
            _, count = _counts(cursor)
            settings = _settings(cursor, count, {ARCHITECTURE}, until=ARCHITECTURE)
    except CheckpointError:
        return None
    architecture = settings.get(ARCHITECTURE)
    return KINDS.get(architecture) if isinstance(architecture, str) else None


def read_gguf_header(path: Path) -> tuple[list[StoredTensor], dict[str, str]]:
    """Return the tensors, and architecture and settings as text. Reads no tensor.

    Raises CheckpointError if the file is damaged, or a model of another architecture.
    """
    with _opened(path) as cursor:
        tensors, count = _counts(cursor)
        wanted = {ARCHITECTURE, CONFIG, "general.alignment"}
        settings = _settings(cursor, count, wanted)
        alignment = settings.pop("general.alignment", 32)
        if settings.get(ARCHITECTURE) not in KINDS:
            raise CheckpointError(
                f"{path} is a GGUF file of architecture {shown(settings.get(ARCHITECTURE))}; those of ACE-Step 1.5 are "
                f"{', '.join(KINDS)}"
            )
        if type(alignment) is not int or not 1 <= alignment <= 2**16 or alignment & (alignment - 1):
            raise ValueError(f"an alignment of {shown(alignment)}")
        infos = [_tensor(cursor) for _ in range(tensors)]
        base = -(-cursor.offset // alignment) * alignment
        placed = [StoredTensor(name, dtype, shape, base + start, size) for name, dtype, shape, start, size in infos]
        _check_places(path, placed, alignment, cursor.size)
        wrong = next((key for key, value in settings.items() if not isinstance(value, str)), None)
        if wrong is not None:
            raise ValueError(f"{wrong} is {shown(settings[wrong])}")
    return placed, settings


def read_gguf_tokenizer(path: Path) -> tuple[list[str], list[str]]:
    """Return the tokens by id and the merges of a file's byte-level BPE. Raises CheckpointError if it has none."""
    with _opened(path) as cursor:
        _, count = _counts(cursor)
        settings = _settings(cursor, count, {TOKENS, MERGES})
    for key in (TOKENS, MERGES):
        listed = settings.get(key)
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            raise CheckpointError(
                f"{path} holds no {key}; give a folder with tokenizer.json, or with vocab.json and merges.txt"
            )
    return settings[TOKENS], settings[MERGES]


class _Cursor:
    """A place in the header of a file of `size` bytes."""

    def __init__(self, content: mmap.mmap):
        self.content, self.size, self.offset = content, len(content), 0

    def advance(self, count: int) -> int:
        """Pass `count` bytes and return where they start."""
        start, end = self.offset, self.offset + count
        if end > self.size:
            raise EOFError
        if end > _MAX_HEADER:
            raise ValueError(f"more than {_MAX_HEADER:,} bytes")
        self.offset = end
        return start

    def number(self, code: str) -> Any:
        return struct.unpack_from(f"<{code}", self.content, self.advance(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        length = self.number("Q")
        start = self.advance(length)
        return self.content[start : start + length].decode("utf-8")

    def value(self, kind: int, wanted: bool, depth: int = 0) -> Any:
        """Return a value, or pass one that is not wanted."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _TEXT:
            return self.text() if wanted else self.advance(self.number("Q"))
        if kind != _ARRAY or depth > 1:
            raise ValueError(f"a value of type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner in _SCALARS and not wanted:
            return self.advance(count * struct.calcsize(f"<{_SCALARS[inner]}"))
        values = []
        for _ in range(count):
            value = self.value(inner, wanted, depth + 1)
            if wanted:
                values.append(value)
        return values


@contextmanager
def _opened(path: Path) -> Iterator[_Cursor]:
    """Open a file at its start. Turn every error of the content into a CheckpointError with one sentence."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            cursor = _Cursor(content)
            try:
                yield cursor
            except EOFError:
                raise CheckpointError(
                    f"{path} is truncated: it has {len(content):,} bytes and ends inside its header; download it again"
                ) from None
            except (ValueError, OverflowError) as error:  # also text that is not UTF-8
                raise CheckpointError(
                    f"{path} is corrupt: its GGUF header cannot be read ({first_line(error)})"
                ) from error
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error


def _counts(cursor: _Cursor) -> tuple[int, int]:
    """Return the number of tensors and of settings, after the magic and the version."""
    start = cursor.advance(len(MAGIC))
    if cursor.content[start : cursor.offset] != MAGIC:
        raise ValueError("it does not start with GGUF")
    version = cursor.number("I")
    if version not in VERSIONS:
        raise ValueError(f"version {version}; known are {VERSIONS[0]} and {VERSIONS[1]}")
    return cursor.number("Q"), cursor.number("Q")


def _settings(cursor: _Cursor, count: int, wanted: Collection[str], until: str | None = None) -> dict[str, Any]:
    """Read the settings whose names are wanted, up to the setting `until`."""
    settings = {}
    for _ in range(count):
        name = cursor.text()
        value = cursor.value(cursor.number("I"), name in wanted)
        if name in wanted:
            settings[name] = value
        if name == until:
            break
    return settings


def _tensor(cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int, int]:
    """Return name, dtype, shape, offset in the data and bytes of the next tensor."""
    name, axes = cursor.text(), cursor.number("I")
    if not name.isprintable() or not 1 <= len(name) <= _MAX_NAME:
        raise ValueError(f"a tensor is named {shown(name)}")
    if not 1 <= axes <= _MAX_AXES:
        raise ValueError(f"{name} has {axes} axes")
    extents = [cursor.number("Q") for _ in range(axes)]  # the fastest first, in the reverse order of torch
    kind, start = cursor.number("I"), cursor.number("Q")
    if kind not in TYPES:
        raise ValueError(f"{name} has type {kind}, an unsupported quantisation")
    dtype, values, size = TYPES[kind]
    if min(extents) < 1 or prod(extents) > _MAX_VALUES or extents[0] % values:
        raise ValueError(f"{name} of {dtype} has the shape {extents[::-1]}")
    shape = tuple(extents[::-1])
    if name.endswith(_THREE_AXES):
        shape = (1,) * (3 - axes) + shape
    return name, dtype, shape, start, prod(extents) // values * size


def _check_places(path: Path, tensors: Collection[StoredTensor], alignment: int, size: int) -> None:
    """Check that every tensor lies in the file, at an aligned place of its own, and has its own name."""
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise ValueError("two tensors have one name")
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.start):
        if tensor.start < end or tensor.start % alignment:
            raise ValueError(f"{tensor.name} starts inside another tensor, or not at {alignment} bytes")
        end = tensor.start + tensor.size
    if end > size:
        raise CheckpointError(f"{path} is truncated: it has {size:,} bytes of at least {end:,}; download it again")
