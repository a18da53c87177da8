"""Which model files a dropdown offers, and where they are. Nothing outside ComfyUI's model folders can be reached."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import folder_paths

from ..acestep_core.checkpoints.catalog import NANO_PLANNER, RELEASES, Kind
from ..acestep_core.errors import CheckpointError, RequestError
from .sockets import AUTO

if TYPE_CHECKING:
    from ..acestep_core.checkpoints.find import Checkpoint

MODELS = "acestep"  # models/acestep: whole model folders
SINGLE_FILES = {
    Kind.NETWORK: ("diffusion_models", "checkpoints"),
    Kind.TEXT_ENCODER: ("text_encoders", "checkpoints"),
    Kind.VAE: ("vae", "checkpoints"),
    Kind.PLANNER: ("text_encoders", "checkpoints"),
}
SUFFIXES = (".safetensors", ".sft")
READ = (*SUFFIXES, ".pt", ".json", ".txt")  # what a model folder is read from
HINTS = {  # shown as the only other entry while there are none
    Kind.NETWORK: "(more: put model folders into models/acestep, single files into models/diffusion_models)",
    Kind.TEXT_ENCODER: "(more: put text encoders into models/text_encoders)",
    Kind.VAE: "(more: put VAEs into models/vae)",
    Kind.PLANNER: "(more: put planner folders into models/acestep, single files into models/text_encoders)",
}
EMBEDDED = "nano"
_OURS = re.compile(r"ace[-_ .]?step|ace[-_ .]?1[-_.]?5|ace15", re.IGNORECASE)


def register_model_folder() -> None:
    """Makes models/acestep known, beside what extra_model_paths.yaml may name for it."""
    folder_paths.add_model_folder_path(MODELS, os.path.join(folder_paths.models_dir, MODELS))


def offered(kind: Kind) -> list[str]:
    """Dropdown entries `category/name`: model folders, then single files, those named after ACE-Step first."""
    folders = [f"{MODELS}/{name}" for name in sorted(_model_folders(kind))]
    files = [
        f"{category}/{name}"
        for category in SINGLE_FILES[kind]
        for name in folder_paths.get_filename_list(category)
        if name.lower().endswith(SUFFIXES)
    ]
    if kind is not Kind.NETWORK:
        files = [name for name in files if not name.startswith("checkpoints/") or _OURS.search(name)]
    files.sort(key=lambda name: _OURS.search(name) is None)
    return [*_always_there(kind), *([*folders, *files] or [HINTS[kind]])]


def _always_there(kind: Kind) -> list[str]:
    if kind is Kind.PLANNER:
        return [EMBEDDED] if NANO_PLANNER.is_dir() else []
    return [EMBEDDED if kind is Kind.NETWORK else AUTO]


def resolve(network: str, text_encoder: str, vae: str) -> Checkpoint:
    """The paths behind three dropdown entries. Raises RequestError or CheckpointError."""
    from ..acestep_core.checkpoints.find import find_checkpoint

    parts = find_checkpoint(EMBEDDED if network == EMBEDDED else path_of(network, "model"), _roots())
    own_text_encoder = text_encoder == AUTO and parts.text_encoder is not None
    return replace(
        parts,
        text_encoder=_part(parts, Kind.TEXT_ENCODER, parts.text_encoder, text_encoder),
        vae=_part(parts, Kind.VAE, parts.vae, vae),
        tokenizer=parts.tokenizer if own_text_encoder else None,
    )


def resolve_planner(choice: str) -> tuple[Path, Path | None]:
    """The planner behind a dropdown entry and, for a single file, the folder of its tokenizer, if one is found.

    Raises RequestError or CheckpointError.
    """
    from ..acestep_core.checkpoints.find import find_planner

    return find_planner(EMBEDDED if choice == EMBEDDED else path_of(choice, "planner"), _roots())


def path_of(choice: str, what: str) -> Path:
    """The file or folder of a dropdown entry. `what`: which one it is, for the one who chose, as ComfyUI puts the
    sentence to every entry of the node."""
    if not isinstance(choice, str):  # another node may give anything
        raise RequestError(f"{what}: {choice!r} is not in the list: choose one from it")
    if choice in HINTS.values():
        raise RequestError(f"that entry only says where models go: {choice[7:-1]}, then press R and choose one")
    category, _, name = choice.partition("/")
    inside = PureWindowsPath(name)  # understands both kinds of slash
    if inside.drive or inside.root or ".." in inside.parts or not inside.parts:
        raise RequestError(f"{what}: {choice!r} names nothing inside ComfyUI's model folders: choose one from the list")
    if category not in {MODELS, *(category for group in SINGLE_FILES.values() for category in group)}:
        raise RequestError(f"{what}: {choice!r} is not in the list: choose one from it")
    folders = folder_paths.get_folder_paths(category)
    for folder in folders:
        path = Path(folder, *inside.parts)
        if path.exists():
            return path
    raise RequestError(f"{what}: {name!r} is not there; looked in {', '.join(folders)}")


def fingerprint(*parts: Path | None) -> list[tuple[str, int, int]]:
    """Changes when one of the files does, or one is added, that a model is read from."""
    paths = {path for path in parts if path is not None}
    # A diffusers folder keeps its weights one level down.
    files = [file for path in sorted(paths) for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return [_stamp(file) for file in files if file in paths or (file.suffix in READ and file.is_file())]


def _stamp(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return str(file), status.st_mtime_ns, status.st_size


def _part(parts: Checkpoint, kind: Kind, found: Path | None, choice: str) -> Path:
    """The chosen part; for "auto" the one found with the model, else any released one that is here."""
    if choice != AUTO:
        return path_of(choice, kind.value)
    if found is not None:
        return found
    category = SINGLE_FILES[kind][0]
    names = [Path(item.target).name for item in RELEASES.values() if item.kind is kind and item.is_file]
    files = (folder_paths.get_full_path(category, name) for name in names)  # extra_model_paths may name any folder
    folders = (path_of(f"{MODELS}/{name}", kind.value) for name in sorted(_model_folders(kind)))
    path = next((Path(file) for file in files if file), None) or next(folders, None)
    if path is None and kind in parts.broken:
        raise CheckpointError(f"the {kind.value} for {parts.network.name} cannot be used: {parts.broken[kind]}")
    if path is None:
        raise RequestError(
            f"no {kind.value} found to go with {parts.network.name}: put {names[0]} into models/{category} (or where "
            f"extra_model_paths.yaml keeps your {category}), or choose one"
        )
    return path


def _roots() -> list[Path]:
    """Where the core looks for the other parts of a model: models/acestep, and the folders that hold the categories."""
    roots = [Path(folder) for folder in folder_paths.get_folder_paths(MODELS)]
    categories = [category for group in SINGLE_FILES.values() for category in group]
    roots += [Path(folder).parent for category in categories for folder in folder_paths.get_folder_paths(category)]
    return list(dict.fromkeys(roots))


def _model_folders(kind: Kind) -> Iterator[str]:
    """Folders below models/acestep with a network of that kind: `model`, or `bundle/model`."""
    for root in map(Path, folder_paths.get_folder_paths(MODELS)):
        for folder in (*_folders_in(root), *(inner for outer in _folders_in(root) for inner in _folders_in(outer))):
            try:
                # The time of the folder itself stands still while a file in it is written.
                files = tuple(_stamp(path) for path in sorted(folder.iterdir()) if path.is_file())
            except OSError:  # not ours to read, or a download that is done just now
                continue
            if kind in _kinds(str(folder), files):
                yield folder.relative_to(root).as_posix()


def _folders_in(folder: Path) -> list[Path]:
    try:
        if not folder.is_dir() or (folder / "model_index.json").is_file():  # a diffusers folder is one model
            return []
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


@lru_cache(maxsize=256)
def _kinds(folder: str, files: tuple[tuple[str, int, int], ...]) -> frozenset[Kind]:
    """What a model folder holds, read from its headers once for each state of its files."""
    from ..acestep_core.checkpoints.kinds import network_prefix, text_prefix, vae_prefix
    from ..acestep_core.checkpoints.layouts import is_diffusers
    from ..acestep_core.checkpoints.reader import read_table
    from ..acestep_core.checkpoints.shards import weight_files

    path = Path(folder)
    if is_diffusers(path):
        return frozenset(SINGLE_FILES) - {Kind.PLANNER}
    try:
        if not weight_files(path):
            return frozenset()
        table = read_table(path)
    except (CheckpointError, OSError):  # a download under way, or not ours: no reason to lose the whole pack
        return frozenset()
    prefixes = {Kind.NETWORK: network_prefix, Kind.TEXT_ENCODER: text_prefix, Kind.VAE: vae_prefix}
    found = {kind for kind, prefix in prefixes.items() if prefix(table) is not None}
    if Kind.TEXT_ENCODER in found and _is_planner(path):
        found = found - {Kind.TEXT_ENCODER} | {Kind.PLANNER}
    return frozenset(found)


def _is_planner(folder: Path) -> bool:
    """Both are Qwen3 models, told apart by their vocabulary."""
    from ..acestep_core.checkpoints.layouts import open_planner

    try:
        open_planner(folder)
    except CheckpointError:
        return False
    return True
