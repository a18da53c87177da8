"""Find adapters by name in the folders of LoRAs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..checkpoints.catalog import NANO
from ..errors import CheckpointError
from .adapter import files_hash
from .adapter_file import CONFIG, WEIGHTS, adapter_name, find_adapter_files
from .recorded_adapter import RecordedAdapter

NANO_LORAS = NANO / "loras"
_MAX_DEPTH = 8  # of folders below a folder of LoRAs


def lora_folders(roots: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders of LoRAs of these roots, and nano's.

    A root may be ComfyUI's models folder, or `acestep` in it.
    """
    folders = [folder / "loras" for root in roots for folder in (root, *([root.parent] if _is_ours(root) else ()))]
    return tuple(dict.fromkeys((*folders, NANO_LORAS)))


def _is_ours(root: Path) -> bool:
    return root.name == "acestep" and root.parent.name == "models"


def list_adapter_paths(folders: Iterable[Path]) -> list[Path]:
    """Return the safetensors files and the folders of adapters below `folders`. Opens none."""
    return [path for folder in folders for path in _below(folder)]


def _below(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real, folder = os.path.realpath(place), Path(place)
        if real in seen or len(folder.relative_to(root).parts) > _MAX_DEPTH:  # links may form a circle
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        if folder != root and (CONFIG in files or any(name in files for name in WEIGHTS)):
            folders.clear()
            yield folder
            continue
        yield from (folder / name for name in sorted(files) if name.lower().endswith(".safetensors"))


def find_adapter(name_or_path: str | Path, folders: Sequence[Path]) -> Path:
    """Find an adapter by its path, by its path below one of the folders, or by its name anywhere below them.

    The suffix `.safetensors` may be left out. Raises CheckpointError.
    """
    path = Path(os.path.expanduser(name_or_path))
    for place in (path, *(() if path.is_absolute() else (folder / path for folder in folders))):
        for candidate in (place, place.with_name(f"{place.name}.safetensors")) if place.name else (place,):
            if os.path.exists(candidate):
                return candidate
    named = [each for each in list_adapter_paths(folders) if path.name and path.name in (each.name, each.stem)]
    if len(named) > 1:
        raise CheckpointError(f"lora: {path} is the name of several adapters: {_listed(named)}; give a path")
    if not named:
        raise CheckpointError(
            f"lora: no {path} found; searched {_listed(folders)}; `acestep loras` lists what is there"
        )
    return named[0]


def find_recorded(recorded: RecordedAdapter, folders: Sequence[Path]) -> Path:
    """Find the adapter of a song by its name and its hash, only below the folders. Raises CheckpointError."""
    named = [path for path in list_adapter_paths(folders) if adapter_name(path) == recorded.name]
    for path in named:
        file, config = find_adapter_files(path)
        if files_hash((config, file) if config else (file,)) == recorded.sha256:
            return path
    if named:
        problem = f"is another file than the song was made with ({_listed(named)})"
    else:
        problem = f"is not in the folders of LoRAs ({_listed(folders)})"
    raise CheckpointError(f"lora: {recorded.name!r:.80} {problem}; give its path with --lora")


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(str(path) for path in paths)
