"""Read the tensors of GGUF files: views of a memory map, or dequantised by the package gguf, some rows at a time."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import CheckpointError
from .gguf_header import QUANTISED, TYPES

if TYPE_CHECKING:
    from .reader import TensorEntry

CHUNK = 1_000_000  # values that are dequantised at once
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BLOCKS = {name: (values, size) for name, values, size in TYPES.values()}


def check_gguf_package(path: Path) -> None:
    """Raise CheckpointError if the package that dequantises is not installed."""
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise CheckpointError(
            f"{path} has quantised weights; reading them needs the package gguf: pip install gguf"
        ) from error


def map_file(path: Path) -> np.ndarray:
    """Map a file copy-on-write, as `safe_open` does."""
    return np.memmap(path, dtype=np.uint8, mode="c")


def read_values(content: np.ndarray, entry: TensorEntry, dtype: torch.dtype | None) -> torch.Tensor:
    """Return a tensor on the CPU in `dtype`. None is the stored dtype, or float32 for quantised values.

    content: the mapped file. Without a cast, a tensor that is not quantised stays in the map.
    """
    stored = content[entry.start : entry.start + entry.size]
    if len(stored) != entry.size:
        raise CheckpointError(f"{entry.file} changed while it was loaded: it ends inside {entry.name} now")
    if entry.dtype in QUANTISED:
        return _dequantised(stored, entry, dtype or torch.float32)
    values = torch.from_numpy(stored).view(_FLOATS[entry.dtype]).reshape(entry.shape)
    return values if dtype is None else values.to(dtype)


def _dequantised(stored: np.ndarray, entry: TensorEntry, dtype: torch.dtype) -> torch.Tensor:
    """Dequantise to float32 and round to `dtype`, so many rows at a time that float32 takes little memory."""
    check_gguf_package(entry.file)
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    columns, (values, size) = entry.shape[-1], _BLOCKS[entry.dtype]
    count, kind = prod(entry.shape[:-1]), GGMLQuantizationType[entry.dtype]
    rows = stored.reshape(count, columns // values * size)
    result = torch.empty(count, columns, dtype=dtype)
    step = max(1, CHUNK // columns)
    for first in range(0, count, step):
        result[first : first + step] = torch.from_numpy(dequantize(rows[first : first + step], kind))
    return result.reshape(entry.shape)
