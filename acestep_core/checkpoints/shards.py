"""Which files of a folder hold the weights of a model, by their names alone: nothing is opened but an index."""

from __future__ import annotations

import json
import re
from pathlib import Path, PureWindowsPath

from ..errors import CheckpointError

_WEIGHT_NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
_COUNT = re.compile(r"-of-(\d+)\.safetensors$")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one model in `folder`: one file, or the shards that its index or their names list.

    Empty where there is none. Raises CheckpointError where some of the shards are missing.
    """
    for name in _WEIGHT_NAMES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _indexed(index)
        if (folder / name).is_file():
            return [folder / name]
        shards = sorted(folder.glob(f"{name.removesuffix('.safetensors')}-*-of-*.safetensors"))
        if shards:
            return _counted(shards)
    return []


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is not a list of shards: {error}") from error
    strange = [name for name in names if not isinstance(name, str) or PureWindowsPath(name).name != name]
    if strange:
        raise CheckpointError(f"{index} lists {strange[0]!r}; a shard is a file in the same folder")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        some = ", ".join(missing[:3])
        raise CheckpointError(f"{index.parent} lacks {len(missing)} of its {len(names)} shards: {some}")
    return [index.parent / name for name in names]


def _counted(shards: list[Path]) -> list[Path]:
    """Without an index, the names tell how many there should be."""
    count = _COUNT.search(shards[0].name)
    if count is not None and len(shards) < int(count[1]):
        missing = int(count[1]) - len(shards)
        raise CheckpointError(f"{shards[0].parent} lacks {missing} of its {int(count[1])} shards")
    return shards
