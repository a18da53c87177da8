"""Model files: the entries of the dropdowns and their paths. Only ComfyUI's model folders are readable."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import folder_paths

from ..acestep_core.checkpoints.catalog import NANO, NANO_PLANNER, RELEASES, Kind
from ..acestep_core.errors import CheckpointError, RequestError, shown
from .comfy_runtime.versions import is_open_to_network
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
FINGERPRINTED = (*SUFFIXES, ".pt", ".json", ".txt")  # the files of a model folder that are read
HINTS = {  # the last entry of a dropdown without files
    Kind.NETWORK: "(more: put model folders into models/acestep, single files into models/diffusion_models)",
    Kind.TEXT_ENCODER: "(more: put text encoders into models/text_encoders)",
    Kind.VAE: "(more: put VAEs into models/vae)",
    Kind.PLANNER: "(more: put planner folders into models/acestep, single files into models/text_encoders)",
}
LORAS = "loras"
EXAMPLE = Path(__file__).parents[1] / "workflows" / "ACE-Step example.ogg"
EXAMPLE_SONGS = "ACE-Step example songs"  # a folder to train on
EXAMPLE_CAPTION = "gentle pop, flute, piano, soft pads, bass guitar and drums"
NANO_ENTRY = "nano"  # the model inside this pack
NANO_LORAS = NANO / "loras"
_NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|%\x00-\x1f\x7f\ud800-\udfff]')
_ACE_STEP = re.compile(r"ace[-_ .]?step|ace[-_ .]?1[-_.]?5|ace15", re.IGNORECASE)


def register_model_folder() -> None:
    """Create models/acestep and add it to ComfyUI's folders. extra_model_paths.yaml may add more."""
    folder = os.path.join(folder_paths.models_dir, MODELS)
    folder_paths.add_model_folder_path(MODELS, folder)
    with contextlib.suppress(OSError):  # not writable: models can still be read from other folders
        os.makedirs(folder, exist_ok=True)


def copy_example() -> None:
    """Copy the example recording into the input folder, which Load Audio lists, and into a folder of songs there."""
    target = Path(folder_paths.get_input_directory(), EXAMPLE.name)
    songs = Path(folder_paths.get_input_directory(), EXAMPLE_SONGS)
    with contextlib.suppress(OSError):  # not writable: the templates then need a recording of the user
        if not target.exists():
            shutil.copyfile(EXAMPLE, target)
        if not songs.exists():
            songs.mkdir()
            shutil.copyfile(EXAMPLE, songs / EXAMPLE.name)
            (songs / EXAMPLE.with_suffix(".txt").name).write_text(f"{EXAMPLE_CAPTION}\n", "utf-8")
            (songs / EXAMPLE.with_suffix(".lyrics.txt").name).write_text("[Instrumental]\n", "utf-8")


def model_entries(kind: Kind) -> list[str]:
    """Return dropdown entries: model folders first, then single files, ACE-Step's own names first, then GGUF files.

    An entry is the name in its category, as in ComfyUI's own loaders, so that shared workflows and ComfyUI's dialog for
    missing models find it. If an earlier category has the name, the entry is `category/name`.
    """
    folders = [(MODELS, name) for name in sorted(_model_folders(kind))]
    files = [
        (category, name)
        for category in SINGLE_FILES[kind]
        for name in folder_paths.get_filename_list(category)
        if name.lower().endswith(SUFFIXES)
        and (kind is Kind.NETWORK or category != "checkpoints" or _ACE_STEP.search(name))
    ]
    files.sort(key=lambda file: _ACE_STEP.search(file[1]) is None)
    entries: list[str] = []
    for category, name in (*folders, *files, *_gguf_files(kind)):
        entries.append(f"{category}/{name}" if name in entries else name)
    return [*_fixed_entries(kind), *(entries or [HINTS[kind]])]


def _gguf_files(kind: Kind) -> Iterator[tuple[str, str]]:
    """Yield category and name of the GGUF files of a kind, by their headers. ComfyUI's own lists have none."""
    from ..acestep_core.checkpoints.gguf_header import gguf_kind

    for category in (MODELS, SINGLE_FILES[kind][0]):
        for folder in folder_paths.get_folder_paths(category):
            # As ComfyUI's recursive_search, which logs every folder.
            places = ((Path(place), name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
            for file in sorted(place / name for place, name in places if name.lower().endswith(".gguf")):
                if gguf_kind(file) is kind:
                    yield category, str(file.relative_to(folder))


def _fixed_entries(kind: Kind) -> list[str]:
    if kind is Kind.PLANNER:
        return [NANO_ENTRY] if NANO_PLANNER.is_dir() else []
    return [NANO_ENTRY if kind is Kind.NETWORK else AUTO]


def resolve_model(network: str, text_encoder: str, vae: str) -> Checkpoint:
    """Return the paths of three dropdown entries. Raises RequestError or CheckpointError."""
    from ..acestep_core.checkpoints.find import find_checkpoint

    parts = find_checkpoint(
        NANO_ENTRY if network == NANO_ENTRY else model_path(network, Kind.NETWORK, "model"), model_roots()
    )
    own_text_encoder = text_encoder == AUTO and parts.text_encoder is not None
    return replace(
        parts,
        text_encoder=_part(parts, Kind.TEXT_ENCODER, parts.text_encoder, text_encoder),
        vae=_part(parts, Kind.VAE, parts.vae, vae),
        tokenizer=parts.tokenizer if own_text_encoder else None,
    )


def resolve_planner(choice: str) -> tuple[Path, Path | None]:
    """Return the path of a planner entry and, for a single file, the folder of its tokenizer or None.

    Raises RequestError or CheckpointError.
    """
    from ..acestep_core.checkpoints.find import find_planner

    return find_planner(
        NANO_ENTRY if choice == NANO_ENTRY else model_path(choice, Kind.PLANNER, "planner"), model_roots()
    )


def model_path(choice: str, kind: Kind, widget: str | None = None) -> Path:
    """Return the file or folder of a dropdown entry. Raises RequestError that names the widget."""
    widget, categories = widget or kind.value, (MODELS, *SINGLE_FILES[kind])
    if isinstance(choice, str) and choice in HINTS.values():
        raise RequestError(f"{widget}: this entry is only a hint: {choice[7:-1]}. Then press R and choose a model.")
    return _find_inside(choice, categories, widget)


def _find_inside(choice: str, categories: Sequence[str], widget: str) -> Path:
    if not isinstance(choice, str):  # a linked node may give anything
        raise RequestError(f"{widget}: {shown(choice)} is not in the list. Choose an entry.")
    inside = PureWindowsPath(choice)  # parses both kinds of slash
    if ":" in choice or inside.root or ".." in inside.parts or not inside.parts:
        raise RequestError(f"{widget}: {shown(choice)} is not in ComfyUI's model folders. Choose an entry of the list.")
    places = [(category, inside.parts) for category in categories]
    if inside.parts[0] in categories and len(inside.parts) > 1:
        places.append((inside.parts[0], inside.parts[1:]))
    for category, parts in places:
        for folder in folder_paths.get_folder_paths(category):
            path = Path(folder, *parts)
            if os.path.exists(path):  # unlike Path.exists, without an error for a long name
                return path
    searched = ", ".join(folder for category in categories for folder in folder_paths.get_folder_paths(category))
    raise RequestError(f"{widget}: {shown(choice)} is not in ComfyUI's model folders ({searched}). Choose an entry.")


def lora_entries() -> list[str]:
    """Return the LoRAs in ComfyUI's folders: files, and folders of PEFT by their own name. ACE-Step's names first.

    Those of nano come last.
    """
    names = [name for name in folder_paths.get_filename_list(LORAS) if name.lower().endswith(SUFFIXES)]
    entries = dict.fromkeys(_folder_of_peft(name) for name in names)
    return [*sorted(entries, key=lambda name: _ACE_STEP.search(name) is None), *_nano_loras(entries)]


def _nano_loras(taken: Container[str] = ()) -> dict[str, Path]:
    """Return the LoRAs inside this pack by their entries."""
    return {path.name: path for path in sorted(NANO_LORAS.iterdir()) if path.name not in taken}


def _folder_of_peft(name: str) -> str:
    folder, _, file = name.replace(os.sep, "/").rpartition("/")
    return folder if folder and file == "adapter_model.safetensors" else name


def resolve_lora(choice: str) -> Path:
    """Return the file or folder of a LoRA entry. Raises RequestError."""
    try:
        return _find_inside(choice, [LORAS], "lora")
    except RequestError:
        own = _nano_loras().get(choice) if isinstance(choice, str) else None
        if own is None:
            raise
        return own


def lora_target(name: str) -> Path:
    """Return the file of a new LoRA in ComfyUI's first folder of LoRAs. Raises RequestError for an unusable name."""
    name = name.strip() if isinstance(name, str) else ""
    stem = name[: -len(".safetensors")] if name.lower().endswith(".safetensors") else name
    if not stem or stem.startswith(".") or _NOT_IN_NAMES.search(stem) or len(stem.encode(errors="replace")) > 100:
        raise RequestError(
            f"name: must be a file name without folders, of at most 100 bytes, got {shown(name)}. my-style is typical."
        )
    folder = folder_paths.get_folder_paths(LORAS)[0]
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise RequestError(f"name: {folder} cannot be created: {error.strerror or error}.") from error
    return Path(folder, f"{stem}.safetensors")


def song_folder(folder: str) -> Path:
    """Return a folder of songs: below ComfyUI's input folder, or anywhere by an absolute path. Raises RequestError.

    A collection of recordings is too large to copy, so any path of this computer is allowed. If other computers can
    reach ComfyUI (--listen), only the input folder is, because a stranger may then choose the path.
    """
    given = folder.strip().strip('"') if isinstance(folder, str) else ""
    root = os.path.abspath(folder_paths.get_input_directory())
    if not given or "\0" in given:
        raise RequestError("folder: empty. Give a folder of songs in ComfyUI's input folder, or an absolute path.")
    path = os.path.abspath(os.path.join(root, os.path.expanduser(given)))
    inside = path == root or path.startswith(os.path.join(root, ""))
    if not inside and not os.path.isabs(os.path.expanduser(given)):
        raise RequestError(f"folder: {shown(folder)} is outside of ComfyUI's input folder. Give an absolute path.")
    if not inside and is_open_to_network():
        raise RequestError(
            f"folder: {shown(folder)} is outside of ComfyUI's input folder, and other computers can reach this ComfyUI "
            f"(--listen). Put the songs into {root}."
        )
    if not os.path.isdir(path):
        raise RequestError(f"folder: {shown(path)} does not exist. Give a folder of songs.")
    return Path(path)


def folder_fingerprint(folder: Path) -> list[tuple[str, int, int]]:
    """Return path, time and size of every file in a folder and its folders."""
    return [
        stamp for place, _, names in os.walk(folder) for name in sorted(names) for stamp in _stamp(Path(place, name))
    ]


def fingerprint(*parts: Path | None) -> list[tuple[str, int, int]]:
    """Return path, time and size of every file that a model is loaded from."""
    paths = {path for path in parts if path is not None}
    # A diffusers folder keeps its weights in subfolders.
    files = [file for path in sorted(paths) for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    used = (file for file in files if file in paths or (file.suffix in FINGERPRINTED and file.is_file()))
    return [stamp for file in used for stamp in _stamp(file)]


def _stamp(file: Path) -> list[tuple[str, int, int]]:
    try:
        status = file.stat()
    except OSError:  # deleted since the search; the load says so
        return []
    return [(str(file), status.st_mtime_ns, status.st_size)]


def _part(parts: Checkpoint, kind: Kind, found: Path | None, choice: str) -> Path:
    """Return the chosen part. For "auto": the one found with the model, else any released one."""
    if choice != AUTO:
        return model_path(choice, kind)
    if found is not None:
        return found
    category = SINGLE_FILES[kind][0]
    names = [Path(item.target).name for item in RELEASES.values() if item.kind is kind and item.is_file]
    files = (folder_paths.get_full_path(category, name) for name in names)
    folders = (model_path(f"{MODELS}/{name}", kind) for name in sorted(_model_folders(kind)))
    path = next((Path(file) for file in files if file), None) or next(folders, None)
    if path is None and kind in parts.broken:
        raise CheckpointError(f"{kind.value}: the one of {parts.network.name} is unusable. {parts.broken[kind]}")
    if path is None:
        raise RequestError(
            f"{kind.value}: none found for {parts.network.name}. Put {names[0]} into models/{category}, or choose one."
        )
    return path


def model_roots() -> list[Path]:
    """Return the folders that hold models: models/acestep, and the parents of the other categories."""
    roots = [Path(folder) for folder in folder_paths.get_folder_paths(MODELS)]
    categories = [category for group in SINGLE_FILES.values() for category in group]
    roots += [Path(folder).parent for category in categories for folder in folder_paths.get_folder_paths(category)]
    return list(dict.fromkeys(roots))


def _model_folders(kind: Kind) -> Iterator[str]:
    """Yield the folders in models/acestep that hold a network of that kind: `model`, or `bundle/model`."""
    for root in map(Path, folder_paths.get_folder_paths(MODELS)):
        for folder in (*_subfolders(root), *(inner for outer in _subfolders(root) for inner in _subfolders(outer))):
            if kind in _kinds(folder):
                yield folder.relative_to(root).as_posix()


def _subfolders(folder: Path) -> list[Path]:
    try:
        if not folder.is_dir() or (folder / "model_index.json").is_file():  # a diffusers folder is one model
            return []
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:  # not readable
        return []


def _kinds(folder: Path) -> set[Kind]:
    """Return the kinds of networks in a model folder, by its headers, which the core caches."""
    from ..acestep_core.checkpoints.contents import network_prefix, text_prefix, vae_prefix
    from ..acestep_core.checkpoints.layouts import is_diffusers
    from ..acestep_core.checkpoints.qwen3_layouts import open_planner
    from ..acestep_core.checkpoints.reader import read_index
    from ..acestep_core.checkpoints.shards import weight_files

    if is_diffusers(folder):
        return set(SINGLE_FILES) - {Kind.PLANNER}
    try:
        if not weight_files(folder):
            return set()
        index = read_index(folder)
    except (CheckpointError, OSError):  # an unfinished download, or not readable
        return set()
    prefixes = {Kind.NETWORK: network_prefix, Kind.TEXT_ENCODER: text_prefix, Kind.VAE: vae_prefix}
    kinds = {kind for kind, prefix in prefixes.items() if prefix(index) is not None}
    if Kind.TEXT_ENCODER in kinds:  # planners are Qwen3 models as well, with a larger vocabulary
        try:
            open_planner(folder)
            kinds = kinds - {Kind.TEXT_ENCODER} | {Kind.PLANNER}
        except CheckpointError:
            pass
    return kinds
