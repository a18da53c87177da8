"""Find the weight files of a model folder by their names. Opens nothing but an index of shards."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path, PureWindowsPath

from ..errors import CheckpointError, shown
from ..files import read_json_object

_WEIGHT_NAMES = ("model", "diffusion_pytorch_model")
_VARIANTS = ("", ".fp16", ".bf16")  # of `save_pretrained(variant=…)`; the plain files win
_SHARD = re.compile(r"-(\d{1,9})-of-(\d{1,9})\.safetensors$")


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of the model in `folder`: one file, or its shards. Empty if there are none.

    Raises CheckpointError if a shard is missing or the index of shards is unusable.
    """
    if not os.path.isdir(folder):  # unlike Path.is_dir, without an error for a name of more than 255 bytes
        return []
    for variant, name in itertools.product(_VARIANTS, _WEIGHT_NAMES):
        index = folder / f"{name}.safetensors.index{variant}.json"
        if os.path.isfile(index):
            return _indexed_shards(index)
        file = folder / f"{name}{variant}.safetensors"
        if os.path.isfile(file):
            return [file]
        candidates = folder.glob(f"{name}{variant}-*-of-*.safetensors")
        shards = sorted(path for path in candidates if _SHARD.search(path.name))
        if shards:
            return _counted_shards(shards)
    return []


def _indexed_shards(index: Path) -> list[Path]:
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} is not a list of shards: weight_map should be an object, it is {shown(places)}")
    outside = [name for name in places.values() if not isinstance(name, str) or PureWindowsPath(name).name != name]
    if outside:
        raise CheckpointError(f"{index} lists {shown(outside[0])}; a shard is a file in the same folder")
    names = sorted(set(places.values()))
    missing = [name for name in names if not os.path.isfile(index.parent / name)]
    if missing:
        some = ", ".join(shown(name)[1:-1] for name in missing[:3])
        raise CheckpointError(f"{index.parent} lacks {len(missing)} of its {len(names)} shards: {some}")
    return [index.parent / name for name in names]


def _counted_shards(shards: list[Path]) -> list[Path]:
    """Check that all shards are there: without an index, each name ends with its number and their count."""
    folder, found = shards[0].parent, [match for shard in shards if (match := _SHARD.search(shard.name))]
    counts = sorted({int(match[2]) for match in found})
    if len(counts) > 1:
        raise CheckpointError(f"{folder} holds shards of a model in {counts[0]} and of one in {counts[1]} files")
    missing = counts[0] - len({int(match[1]) for match in found})
    if missing > 0:
        raise CheckpointError(f"{folder} lacks {missing} of its {counts[0]} shards")
    return shards
