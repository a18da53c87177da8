"""Safetensors files without a map of memory: headers first, then each tensor straight into the place where it stays.

A memory-mapped file counts towards the process while it is read, and a tensor that lives in the map changes when the
file does. Here every byte is read into memory of its own, so a load costs its result and a small window.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import torch

from ..errors import CheckpointError
from .shards import weight_files

# Values read at a time when a tensor changes dtype or device on its way. In main memory as many as torch converts
# without waking its threads (tensors are read in parallel anyway), which also keeps them in the processor's cache.
WINDOW = 1 << 15
DEVICE_WINDOW = 1 << 22
MAX_HEADER = 100_000_000  # of the safetensors format

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
FLOATS = frozenset(name for name, dtype in DTYPES.items() if dtype.is_floating_point)

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: `size` bytes from `start` in `file`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class Table:
    """What the headers of a file, or of a folder's shards, say. `path` is that file or folder."""

    path: Path
    entries: dict[str, Entry]
    metadata: dict[str, str] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...] | None:
        entry = self.entries.get(name)
        return None if entry is None else entry.shape

    def under(self, prefix: str) -> Table:
        """Only the tensors whose names start with `prefix`, without it."""
        inside = {name.removeprefix(prefix): entry for name, entry in self.entries.items() if name.startswith(prefix)}
        return replace(self, entries=inside)


def read_table(path: Path) -> Table:
    """The tensors of a safetensors file or of a folder with one (sharded or not). No tensor is read.

    Raises CheckpointError for anything else: nothing there, a truncated or foreign file, a missing shard.
    """
    if path.is_file():
        return _read_header(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist")
    files = weight_files(path)
    if not files:
        raise CheckpointError(_nothing_in(path))
    tables = [_read_header(file) for file in files]
    entries: dict[str, Entry] = {}
    for table in tables:
        twice = entries.keys() & table.entries.keys()
        if twice:
            raise CheckpointError(f"{path} has the tensor {min(twice)} in two files; remove the file that is not meant")
        entries |= table.entries
    return Table(path, entries, {key: value for table in tables for key, value in table.metadata.items()})


def _nothing_in(folder: Path) -> str:
    present = sorted(item.name for item in folder.iterdir())
    if not present:
        return f"{folder} is empty; it should hold model.safetensors"
    if "ace_step_transformer" in present:
        return f"{folder} is ACE-Step 1.0, a different model; wanted is ACE-Step 1.5"
    pickles = [name for name in present if name.endswith(_PICKLES) and name != "silence_latent.pt"]
    if pickles:
        return f"{folder} holds {pickles[0]}, a pickle, which could run code; only safetensors files are loaded"
    return f"{folder} holds no model.safetensors (nor shards of one); it holds {', '.join(present[:5])}"


def _read_header(path: Path) -> Table:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            raw = file.read(length) if length <= MAX_HEADER else b""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not raw.startswith(b"{"):
        raise CheckpointError(f"{path} is {_foreign(start)}")
    if len(raw) < length:
        raise CheckpointError(_truncated(path, size, 8 + length))
    try:
        header = json.loads(raw)
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        entries = {name: _entry(name, path, item, 8 + length) for name, item in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is corrupt: its safetensors header cannot be read ({error})") from error
    expected = max((entry.start + entry.size for entry in entries.values()), default=8 + length)
    if size < expected:
        raise CheckpointError(_truncated(path, size, expected))
    return Table(path, entries, metadata)


def _entry(name: str, path: Path, item: dict, base: int) -> Entry:
    begin, end = item["data_offsets"]
    shape = tuple(int(length) for length in item["shape"])
    dtype = item["dtype"]
    known = DTYPES.get(dtype)
    if begin < 0 or (known is not None and prod(shape) * known.itemsize != end - begin):
        raise ValueError(f"{name}: {end - begin} bytes for shape {list(shape)} of {dtype}")
    return Entry(name, path, dtype, shape, base + begin, end - begin)


def _truncated(path: Path, size: int, expected: int) -> str:
    return (
        f"{path} is truncated: it has {size:,} bytes of at least {expected:,}; the download was probably cut off, "
        "fetch it again"
    )


def _foreign(start: bytes) -> str:
    """What a file is that is no safetensors file, by its first bytes."""
    if not start:
        return "empty"
    if start.startswith(b"GGUF"):
        return "a GGUF file; only safetensors files (bf16, fp16, fp32 or fp8) are loaded"
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "a pickle, which could run code; only safetensors files are loaded"
    if start.startswith(b"version "):
        return "a Git LFS pointer, not the file itself; run `git lfs pull` or download it"
    if start.lstrip().lower().startswith((b"<!doc", b"<html")):
        return "a web page, not a model; the download went wrong"
    return "not a safetensors file, or its header is corrupt"


def read(entry: Entry) -> torch.Tensor:
    """The tensor as stored, in memory of its own."""
    if entry.dtype not in DTYPES:
        raise CheckpointError(f"{entry.name} in {entry.file} is stored as {entry.dtype}, which is not supported")
    raw = torch.empty(entry.size, dtype=torch.uint8)
    for _ in _stream(entry, raw):
        pass
    return raw.view(DTYPES[entry.dtype]).reshape(entry.shape)


def read_to(entry: Entry, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The tensor on `device` in `dtype`. Beside it only a window of the stored bytes is in memory."""
    stored = DTYPES.get(entry.dtype)
    if stored == dtype and device.type == "cpu":
        return read(entry)
    if stored is None:
        raise CheckpointError(f"{entry.name} in {entry.file} is stored as {entry.dtype}, which is not supported")
    result = torch.empty(prod(entry.shape), dtype=dtype, device=device)
    done, window = 0, (WINDOW if device.type == "cpu" else DEVICE_WINDOW) * stored.itemsize
    for piece in _stream(entry, torch.empty(min(window, entry.size), dtype=torch.uint8)):
        values = piece.view(stored)
        if device.type != "cpu":
            values = values.to(dtype)  # here, because not every device has every dtype (fp8, float64)
        result[done : done + len(values)].copy_(values)
        done += len(values)
    return result.reshape(entry.shape)


def _stream(entry: Entry, window: torch.Tensor) -> Iterator[torch.Tensor]:
    """Reads the bytes of `entry` into `window`, again and again, and yields the filled part each time."""
    target = memoryview(window.numpy())
    left = entry.size
    try:
        with entry.file.open("rb", buffering=0) as file:
            file.seek(entry.start)
            while left:
                filled = _fill(file, target[: min(len(target), left)])
                left -= filled
                yield window[:filled]
    except (OSError, EOFError) as error:
        raise CheckpointError(f"{entry.file} cannot be read at tensor {entry.name}: {error}") from error


def _fill(file, target: memoryview) -> int:
    done = 0
    while done < len(target):
        count = file.readinto(target[done : done + (64 << 20)])  # one call reads at most 2 GiB
        if not count:
            raise EOFError("the file ends too early")
        done += count
    return done
