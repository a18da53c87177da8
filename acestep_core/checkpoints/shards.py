"""Find the weight files of a model folder by their names. Opens nothing but an index of shards."""

from __future__ import annotations

import json
import re
from pathlib import Path, PureWindowsPath

from ..errors import CheckpointError

_WEIGHT_NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
_COUNT = re.compile(r"-of-(\d+)\.safetensors$")


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of the model in `folder`: one file, or its shards. Empty if there are none.

    Raises CheckpointError if a shard is missing or the index of shards is unusable.
    """
    for name in _WEIGHT_NAMES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _indexed_shards(index)
        if (folder / name).is_file():
            return [folder / name]
        shards = sorted(folder.glob(f"{name.removesuffix('.safetensors')}-*-of-*.safetensors"))
        if shards:
            return _counted_shards(shards)
    return []


def _indexed_shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is not a list of shards: {error}") from error
    outside = [name for name in names if not isinstance(name, str) or PureWindowsPath(name).name != name]
    if outside:
        raise CheckpointError(f"{index} lists {outside[0]!r}; a shard is a file in the same folder")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        some = ", ".join(missing[:3])
        raise CheckpointError(f"{index.parent} lacks {len(missing)} of its {len(names)} shards: {some}")
    return [index.parent / name for name in names]


def _counted_shards(shards: list[Path]) -> list[Path]:
    """Check that all shards are there: without an index, each name ends with their number."""
    count = _COUNT.search(shards[0].name)
    if count is not None and len(shards) < int(count[1]):
        missing = int(count[1]) - len(shards)
        raise CheckpointError(f"{shards[0].parent} lacks {missing} of its {int(count[1])} shards")
    return shards
