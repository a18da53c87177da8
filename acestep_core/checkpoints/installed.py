"""Find the releases of the catalog on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from ..files import read_json_object
from .catalog import NANO, RELEASES, Kind, Release
from .gguf_header import gguf_kind
from .shards import weight_files

_GGUF_FOLDERS = ("acestep", "diffusion_models", "unet", "text_encoders", "vae")
_WITHOUT_WEIGHTS = ("tokenizer", "scheduler")  # components of a diffusers folder


@dataclass(frozen=True)
class ReleaseStatus:
    """A release, the path where it is installed (None: nowhere), and the paths that were searched."""

    release: Release
    found: Path | None
    searched: tuple[Path, ...]


def list_releases(roots: Sequence[Path]) -> list[ReleaseStatus]:
    """Return every release of the catalog and whether it is installed below one of the roots."""
    statuses = []
    for release in RELEASES.values():
        searched = release_paths(release, roots)
        found = next((path for path in searched if _is_complete(release, path)), None)
        statuses.append(ReleaseStatus(release, found, searched))
    return statuses


def list_gguf_files(roots: Sequence[Path]) -> list[tuple[Path, Kind]]:
    """Return the GGUF files of ACE-Step 1.5 in the roots and the folders that ComfyUI has in them, with their kinds."""
    folders = [root / folder for root in roots for folder in ("", *_GGUF_FOLDERS)]
    files = dict.fromkeys(file for folder in folders for file in sorted(folder.glob("*.gguf")))
    kinds = ((file, gguf_kind(file)) for file in files)
    return [(file, kind) for file, kind in kinds if kind is not None]


def release_paths(release: Release, roots: Sequence[Path]) -> tuple[Path, ...]:
    """Return the possible paths of a release. A root may be ComfyUI's models folder: its `acestep` is searched too."""
    if release.repo is None:
        return (NANO,)
    if release.is_file:
        return tuple(root / release.target for root in roots)
    return tuple(path for root in roots for path in (root / release.target, root / "acestep" / release.target))


def _is_complete(release: Release, path: Path) -> bool:
    if release.is_file:
        return os.path.isfile(path)
    if path == NANO:
        return True
    if release.kind is Kind.TOKENIZER:
        return has_tokenizer(path)
    try:
        return all(weight_files(folder) for folder in _weight_folders(path))
    except CheckpointError:  # some shards are missing
        return False


def _weight_folders(path: Path) -> list[Path]:
    """Return the folders that hold weights: the model's own, or those in the index of a diffusers folder."""
    try:
        index = read_json_object(path / "model_index.json")
    except CheckpointError:
        return [path]
    parts = [name for name, part in index.items() if isinstance(part, list) and any(part)]
    return [path / name for name in parts if name not in _WITHOUT_WEIGHTS] or [path]


def has_tokenizer(folder: Path) -> bool:
    """Return True if the folder holds the files that `Tokenizer.from_folder` reads."""
    names = ("vocab.json", "merges.txt")
    return os.path.isfile(folder / "tokenizer.json") or all(os.path.isfile(folder / name) for name in names)


def default_roots(models_dir: str | None = None) -> tuple[Path, ...]:
    """Return the folders to search for models: `models_dir` alone, else the user's data and `models/acestep` here.

    Downloads go into the first folder. If the current folder has a `models` folder, like ComfyUI's, `models/acestep`
    comes first. Otherwise the user's data comes first, because it is found from every folder.
    """
    if models_dir:
        return (Path(os.path.expanduser(models_dir)),)
    here, everywhere = Path("models/acestep"), _user_data() / "acestep"
    return (here, everywhere) if os.path.isdir(here.parent) else (everywhere, here)


def _user_data() -> Path:
    home = Path.home()
    if sys.platform == "win32":
        return home / "AppData" / "Local"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    return home / ".local" / "share"
