"""Read safetensors and GGUF files: their headers once, their tensors as views of a memory map.

`safe_open` maps a file copy-on-write. A tensor that needs no cast stays in the map: the kernel reads its pages on first
use and drops them when memory runs low, so a model larger than the free memory still loads. Writing to such a tensor
copies a page and leaves the file alone.

The limits of a map are those of ComfyUI's own loader. Replacing the file under a loaded model is safe, as every
downloader does: the old contents stay until the model is gone. Overwriting the file in place changes the weights, and
truncating it in place kills the process. Windows refuses both, and the replacement, while the model is loaded.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError, first_line, shown
from .gguf_header import MAGIC, QUANTISED, read_gguf_header
from .gguf_values import map_file, read_values
from .shards import weight_files

MAX_HEADER = 100_000_000  # bytes, of the safetensors format
MAX_NAME = 200  # characters of a tensor's name
MAX_AXES = 8
CACHED_HEADERS = 128

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
READABLE = FLOATS | QUANTISED

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a safetensors or GGUF file: `size` bytes at offset `start`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int
    gguf: bool = False


@dataclass(frozen=True)
class TensorIndex:
    """The tensors of a file, or of all shards in a folder. `path` is that file or folder."""

    path: Path
    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def below(self, prefix: str) -> TensorIndex:
        """Return only the tensors whose names start with `prefix`, without the prefix."""
        inside = {name.removeprefix(prefix): entry for name, entry in self.entries.items() if name.startswith(prefix)}
        return replace(self, entries=inside)


def read_index(path: Path) -> TensorIndex:
    """Read the headers of a safetensors or GGUF file, or of the model in a folder (one file or shards).

    Reads no tensor. A header stays cached until its file changes. Raises CheckpointError if the path does not exist, a
    shard is missing, or a file is truncated or of another format.
    """
    if os.path.isfile(path):  # unlike Path.is_file, without an error for a name of more than 255 bytes
        return _read_header(path)
    if not os.path.isdir(path):
        raise CheckpointError(f"{path} does not exist")
    try:
        files = weight_files(path)
        if not files:
            raise CheckpointError(_describe_folder(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error
    headers = [_read_header(file) for file in files]
    entries: dict[str, TensorEntry] = {}
    for header in headers:
        duplicates = entries.keys() & header.entries.keys()
        if duplicates:
            raise CheckpointError(f"{path} has the tensor {min(duplicates)} in two files; remove the wrong file")
        entries |= header.entries
    return TensorIndex(path, entries, {key: value for header in headers for key, value in header.metadata.items()})


def _describe_folder(folder: Path) -> str:
    """Say why a folder without weights is refused."""
    names = sorted(item.name for item in folder.iterdir())
    if not names:
        return f"{folder} is empty; expected model.safetensors"
    if "ace_step_transformer" in names:
        return f"{folder} is ACE-Step 1.0, a different model; expected ACE-Step 1.5"
    pickles = [name for name in names if name.endswith(_PICKLES) and name != "silence_latent.pt"]
    if pickles:
        return f"{folder} holds {pickles[0]}, a pickle, which could run code; only safetensors files are loaded"
    return f"{folder} holds no model.safetensors and no shards of one; it holds {', '.join(names[:5])}"


def _read_header(path: Path) -> TensorIndex:
    try:
        status = path.stat()
        return _parse_header(path, status.st_size, status.st_mtime_ns, status.st_ino)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error


@lru_cache(CACHED_HEADERS)
def _parse_header(path: Path, size: int, mtime_ns: int, inode: int) -> TensorIndex:
    """Parse the header of a file. All arguments but the path and the size only identify the file's state."""
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(MAGIC):
            tensors, settings = read_gguf_header(path)
            entries = {t.name: TensorEntry(t.name, path, t.dtype, t.shape, t.start, t.size, gguf=True) for t in tensors}
            return TensorIndex(path, entries, settings)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        raw = file.read(length) if length <= MAX_HEADER else b""
    if not raw.startswith(b"{"):
        raise CheckpointError(f"{path} is {_describe_start(start)}")
    if len(raw) < length:
        raise CheckpointError(_truncated(path, size, 8 + length))
    try:
        header = json.loads(raw)
        metadata = _metadata(header.pop("__metadata__", {}))
        entries = {name: _entry(name, path, item, 8 + length) for name, item in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else first_line(error)
        raise CheckpointError(f"{path} is corrupt: its safetensors header cannot be read ({problem})") from error
    _check_offsets(path, entries.values(), 8 + length, size)
    return TensorIndex(path, entries, metadata)


def _metadata(stated: Any) -> dict[str, str]:
    wrong = next((value for value in stated.values() if not isinstance(value, str)), None)
    if wrong is not None:
        raise ValueError(f"the metadata should be text, it holds {shown(wrong)}")
    return dict(stated)


def _entry(name: str, path: Path, item: dict[str, Any], base: int) -> TensorEntry:
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not name.isprintable() or len(name) > MAX_NAME:
        raise ValueError(f"a tensor is named {shown(name)}")
    whole = all(isinstance(value, list) and all(type(n) is int and n >= 0 for n in value) for value in (shape, offsets))
    if (
        not whole
        or not isinstance(dtype, str)
        or not dtype.isidentifier()
        or len(offsets) != 2
        or len(shape) > MAX_AXES
    ):
        raise ValueError(f"{name}: {shown(item)}")
    begin, end = offsets
    known = DTYPES.get(dtype)
    if end < begin or (known is not None and prod(shape) * known.itemsize != end - begin):
        raise ValueError(f"{name}: {end - begin} bytes for shape {shape} of {dtype}")
    return TensorEntry(name, path, dtype, tuple(shape), base + begin, end - begin)


def _check_offsets(path: Path, entries: Iterable[TensorEntry], base: int, size: int) -> None:
    """Check that the tensors fill the file from byte `base` on, without overlap or gap, as the format demands."""
    ordered = sorted(entries, key=lambda entry: (entry.start, entry.size))
    expected = max((entry.start + entry.size for entry in ordered), default=base)
    if size < expected:
        raise CheckpointError(_truncated(path, size, expected))
    end = base
    for entry in ordered:
        if entry.start != end:
            problem = "overlaps another tensor" if entry.start < end else f"follows {entry.start - end:,} unused bytes"
            raise CheckpointError(f"{path} is corrupt: {entry.name} {problem}; download it again")
        end += entry.size
    if size > end:
        raise CheckpointError(f"{path} is corrupt: it has {size - end:,} bytes after its tensors; download it again")


def _truncated(path: Path, size: int, expected: int) -> str:
    return f"{path} is truncated: it has {size:,} bytes of at least {expected:,}; download it again"


def _describe_start(start: bytes) -> str:
    """Name the format of a foreign file by its first bytes."""
    if not start:
        return "empty"
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "a pickle, which could run code; only safetensors files are loaded"
    if start.startswith(b"version "):
        return "a Git LFS pointer, not the file itself; run `git lfs pull` or download the file"
    if start.lstrip().lower().startswith((b"<!doc", b"<html")):
        return "a web page, not a model; download the file again"
    return "not a safetensors file or GGUF file, or its header is corrupt"


class TensorReader:
    """Read tensors of files and map each file once. The tensors stay valid without the reader."""

    def __init__(self) -> None:
        self._files: dict[Path, Any] = {}

    def read(self, entry: TensorEntry) -> torch.Tensor:
        """Return the tensor as stored, a view of the memory map on the CPU. Raises CheckpointError.

        Quantised tensors of GGUF files are float32.
        """
        if entry.gguf:
            return self._read_gguf(entry, None)
        if entry.dtype not in DTYPES:
            raise CheckpointError(
                f"{entry.file} stores {entry.name} as {entry.dtype}, an unsupported format; use bf16, fp16, fp32 or fp8"
            )
        try:
            if entry.file not in self._files:
                self._files[entry.file] = safe_open(entry.file, framework="pt", device="cpu")
            tensor = self._files[entry.file].get_tensor(entry.name)
        except (SafetensorError, OSError) as error:
            problem = first_line(error)
            raise CheckpointError(f"{entry.file} cannot be read at tensor {entry.name}: {problem}") from error
        if tuple(tensor.shape) != entry.shape:
            raise CheckpointError(f"{entry.file} changed while it was loaded: {entry.name} has another shape now")
        return tensor

    def read_as(self, entry: TensorEntry, dtype: torch.dtype) -> torch.Tensor:
        """Return the tensor on the CPU in `dtype`; without a cast it stays a view of the memory map."""
        return self._read_gguf(entry, dtype) if entry.gguf else self.read(entry).to(dtype)

    def _read_gguf(self, entry: TensorEntry, dtype: torch.dtype | None) -> torch.Tensor:
        try:
            if entry.file not in self._files:
                self._files[entry.file] = map_file(entry.file)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{entry.file} cannot be read: {first_line(error)}") from error
        return read_values(self._files[entry.file], entry, dtype)
