"""Find a model by a name of the catalog or by its path, together with its VAE, text encoder and tokenizer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError, first_line
from .catalog import NANO, NANO_PLANNER, RELEASES, Kind, Release
from .contents import network_prefix
from .gguf_header import gguf_kind, is_gguf
from .installed import release_paths
from .layouts import Layout, is_diffusers
from .network_layouts import open_network
from .parts import PART_FOLDERS, PartSearch, folders_around
from .qwen3_layouts import open_planner
from .reader import read_index
from .shards import weight_files
from .variants import VARIANTS, Variant

_COMFY_FOLDERS = ("diffusion_models", "unet", "checkpoints")
_DOWNLOAD = {Kind.VAE: "vae", Kind.TEXT_ENCODER: "text-encoder", Kind.TOKENIZER: "tokenizer"}
# A planner's name also finds the other releases of the same planner.
_SAME_PLANNER = {"lm-1.7b": ("comfy-lm-1.7b", "comfy-turbo-aio"), "lm-4b": ("comfy-lm-4b",)}


@dataclass(frozen=True)
class Checkpoint:
    """The paths of one model's parts.

    vae, text_encoder, tokenizer: None if not found. The tokenizer is a folder.
    searched: the folders that were searched for each part.
    broken: the error of an unusable file, by the part that was not found.

    All parts may be one file or folder: each loader picks its own tensors.
    """

    name: str
    layout: Layout
    variant: Variant
    network: Path
    vae: Path | None
    text_encoder: Path | None
    tokenizer: Path | None
    searched: Mapping[Kind, tuple[Path, ...]]
    broken: Mapping[Kind, str] = field(default_factory=dict)

    def path_of(self, kind: Kind) -> Path:
        """Return the path of a part. Raises CheckpointError if the part is missing or broken."""
        path: Path | None = getattr(self, kind.name.lower())
        if path is None and kind in self.broken:
            raise CheckpointError(f"{kind.value} for {self.network} cannot be used: {self.broken[kind]}")
        if path is None:
            raise CheckpointError(
                f"{kind.value}: none found for {self.network}; searched {_listed(self.searched[kind])}; "
                f"`acestep download {_DOWNLOAD[kind]}` downloads it"
            )
        return path


def find_checkpoint(name_or_path: str | Path, search_roots: Sequence[str | Path] = ()) -> Checkpoint:
    """Find a model by its name (of the catalog, or of a folder in one of the roots) or by its path.

    A root or a path may be a folder of models, one model's folder, a ComfyUI models folder or a single file. The VAE
    and the text encoder are searched inside the model, beside it, and in the roots. Raises CheckpointError.
    """
    roots = [Path(os.path.expanduser(root)) for root in search_roots]
    name = str(name_or_path)
    source = open_network(_find_release(name, roots) if name in RELEASES else _find_path(Path(name), roots))
    search = PartSearch([*folders_around(source.path), *roots, *(root / "acestep" for root in roots)])
    vae = search.find(Kind.VAE, source.path)
    text_encoder = search.find(Kind.TEXT_ENCODER, source.path)
    return Checkpoint(
        name=name if name in RELEASES else source.path.name,
        layout=source.layout,
        variant=source.variant,
        network=source.path,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=search.find_tokenizer(text_encoder),
        searched=search.searched,
        broken=search.broken,
    )


def find_part(kind: Kind, name_or_path: str | Path, roots: Sequence[Path] = ()) -> Path:
    """Find a VAE or text encoder by its name in the catalog, by its path, or by the path of a model that has it.

    Raises CheckpointError.
    """
    release, path = RELEASES.get(str(name_or_path)), Path(os.path.expanduser(name_or_path))
    folders = ("", "acestep", "vae", "text_encoders")
    candidates = _candidates(path, roots, folders) if release is None else release_paths(release, roots)
    found = _first_existing(candidates)
    if found is None:
        raise CheckpointError(
            f"{kind.value}: no {name_or_path} found; searched {_listed(candidates)}; `acestep models` lists known names"
        )
    search = PartSearch([found])
    inside = search.find(kind, found)
    if inside is None and kind in search.broken:
        raise CheckpointError(f"{kind.value} of {found} cannot be used: {search.broken[kind]}")
    return inside or found


def find_installed(kind: Kind, name: str, roots: Sequence[Path]) -> str:
    """Return a name of the catalog, or the path of a model in the model folders: never one in the current folder.

    For names that a file chose. Raises CheckpointError.
    """
    if name in RELEASES:
        return name
    folders = {Kind.NETWORK: _COMFY_FOLDERS, Kind.VAE: ("vae",), Kind.TEXT_ENCODER: ("text_encoders",)}[kind]
    found = _first_existing(root / folder / name for root in roots for folder in ("", "acestep", *folders))
    if found is None:
        option = {Kind.NETWORK: "model", Kind.VAE: "vae", Kind.TEXT_ENCODER: "text-encoder"}[kind]
        raise CheckpointError(
            f"{kind.value}: {name!r:.80} is not in the model folders ({_listed(roots)}); give its path with --{option}"
        )
    return str(found)


def find_planner(name_or_path: str | Path, search_roots: Sequence[str | Path] = ()) -> tuple[Path, Path | None]:
    """Find a planner LM by its name in the catalog or by its path.

    Return its path, and for a single file the folder of its tokenizer, if one is found. GGUF files hold their own.
    Raises CheckpointError.
    """
    roots = [Path(os.path.expanduser(root)) for root in search_roots]
    name = str(name_or_path)
    release = RELEASES.get(name)
    candidates: Sequence[Path]
    if name == "nano":
        candidates = [NANO_PLANNER]
    elif release is None:
        candidates = _candidates(Path(os.path.expanduser(name)), roots, ("", "acestep", "text_encoders"))
    elif release.kind in (Kind.PLANNER, Kind.ALL_IN_ONE):
        same = (release, *(RELEASES[other] for other in _SAME_PLANNER.get(name, ())))
        candidates = [path for each in same for path in release_paths(each, roots)]
    else:
        known = ", ".join(name for name, item in RELEASES.items() if item.kind is Kind.PLANNER)
        raise CheckpointError(f"{name} is a {release.kind.value}; expected a planner LM: nano, {known}")
    found = _first_existing(candidates)
    if found is None:
        raise CheckpointError(f"planner LM {name!r} not found; searched {_listed(candidates)}{_download_hint(release)}")
    path = open_planner(found).path
    if os.path.isdir(path) or is_gguf(path):
        return path, None
    search = PartSearch([*folders_around(path), *roots, *(root / "acestep" for root in roots)])
    return path, search.find_tokenizer(path.parent)


def _find_release(name: str, roots: Sequence[Path]) -> Path:
    """Find the diffusion model of a name in the catalog. A variant's name finds it in any of its layouts."""
    release = RELEASES[name]
    if release.kind not in (Kind.NETWORK, Kind.ALL_IN_ONE):
        raise CheckpointError(
            f"{name} is a {release.kind.value}; expected a diffusion model: nano, {', '.join(VARIANTS)}"
        )
    same: Iterable[Release] = (release,)
    if name in VARIANTS:
        same = [other for other in RELEASES.values() if other.variant is release.variant]
    candidates = [path for other in same for path in release_paths(other, roots)]
    found = _first_existing(candidates)
    if found is None:
        raise CheckpointError(f"{name} is not installed; searched {_listed(candidates)}{_download_hint(release)}")
    return _network_in(found) if found == NANO else found


def _find_path(path: Path, roots: Sequence[Path]) -> Path:
    """Find the diffusion model at a path, or at that path below one of the roots."""
    candidates = _candidates(Path(os.path.expanduser(path)), roots, ("", "acestep", *_COMFY_FOLDERS))
    found = _first_existing(candidates)
    if found is None:
        names = ", ".join(name for name, item in RELEASES.items() if item.kind is not Kind.PLANNER)
        raise CheckpointError(f"model {str(path)!r} not found; searched {_listed(candidates)}; known names: {names}")
    return _network_in(found)


def _candidates(path: Path, roots: Sequence[Path], folders: Sequence[str]) -> list[Path]:
    """Return the path and, if it is relative, the same path below the folders of each root."""
    below = [] if path.is_absolute() else [root / folder / path for root in roots for folder in folders]
    return list(dict.fromkeys([path, *below]))


def _first_existing(candidates: Iterable[Path]) -> Path | None:
    return next((path for path in candidates if os.path.exists(path)), None)


def _download_hint(release: Release | None) -> str:
    return f"; `acestep download {release.name}` downloads it" if release and release.repo else ""


def _network_in(path: Path) -> Path:
    """Return `path` if it is a model. In a folder of models, return turbo or the only diffusion model."""
    if os.path.isfile(path) or is_diffusers(path) or weight_files(path):
        return path
    try:
        below = [folder for folder in sorted(path.iterdir()) if os.path.isdir(folder)]
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error
    networks, broken = _networks(folder for folder in below if folder.name not in _COMFY_FOLDERS)
    if not networks:
        known = (path / item.target for item in RELEASES.values() if item.is_file and item.variant)
        files = [file for file in known if os.path.isfile(file)][:1] or [*_comfy_files(path), *_gguf_networks(path)]
        networks, broken_files = _networks(files)
        broken += broken_files
    if not networks and broken:
        raise broken[0]
    if not networks:
        read_index(path)  # raises an error that describes the folder
    turbo = [network for network in networks if network.name == RELEASES["turbo"].target]
    if len(networks) > 1 and not turbo:
        names = ", ".join(str(network.relative_to(path)) for network in networks)
        raise CheckpointError(f"{path} holds several models; choose one of {names}")
    return (turbo or networks)[0]


def _comfy_files(root: Path) -> list[Path]:
    return [file for folder in _COMFY_FOLDERS for file in sorted((root / folder).rglob("*.safetensors"))]


def _gguf_networks(root: Path) -> list[Path]:
    folders = (root / folder for folder in ("", *_COMFY_FOLDERS))
    files = [file for folder in folders for file in sorted(folder.glob("*.gguf"))]
    return [file for file in files if gguf_kind(file) is Kind.NETWORK]


def _networks(paths: Iterable[Path]) -> tuple[list[Path], list[CheckpointError]]:
    """Return the diffusion models among the paths, and the errors of those that are broken."""
    networks, certain, likely = [], [], []
    for path in paths:
        try:
            open_network(path)
            networks.append(path)
        except CheckpointError as error:
            try:
                index = None if is_diffusers(path) else read_index(path)
                if index is None or network_prefix(index) is not None:
                    certain.append(error)
            except CheckpointError:  # unreadable
                if path.name not in PART_FOLDERS and (os.path.isfile(path) or _has_weights(path)):
                    likely.append(error)
    return networks, [*certain, *likely]


def _has_weights(folder: Path) -> bool:
    try:
        return bool(weight_files(folder))
    except CheckpointError:  # some shards are missing
        return True


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(str(path) for path in paths)
