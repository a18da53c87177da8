"""Where the parts of a model are: the diffusion model, its VAE, its text encoder and the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError
from .catalog import NANO, NANO_PLANNER, RELEASES, VARIANTS, Kind, Release, Variant, has_tokenizer, places
from .kinds import text_prefix, vae_prefix
from .layouts import Layout, is_diffusers, open_network, open_planner, open_text_encoder, open_vae
from .reader import Table, read_table
from .shards import weight_files

_VAE_FOLDERS = ("vae",)
_TEXT_FOLDERS = ("Qwen3-Embedding-0.6B", "text_encoder", "text_encoders", "clip")
_TOKENIZER_FOLDERS = ("Qwen3-Embedding-0.6B", "tokenizer", "text_encoders")
_COMFY_FOLDERS = ("diffusion_models", "unet", "checkpoints")
_DOWNLOAD = {Kind.VAE: "vae", Kind.TEXT_ENCODER: "text-encoder", Kind.TOKENIZER: "tokenizer"}


@dataclass(frozen=True)
class Checkpoint:
    """The parts of one model. A part that is None was not found in `searched`; `broken` says what is wrong with one
    that lies there and cannot be used.

    `tokenizer` is a folder. All parts may be one and the same file or folder; the loaders pick theirs out of it.
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
        """The path of that part. Raises CheckpointError that says where it was looked for."""
        path = {
            Kind.NETWORK: self.network,
            Kind.VAE: self.vae,
            Kind.TEXT_ENCODER: self.text_encoder,
            Kind.TOKENIZER: self.tokenizer,
        }[kind]
        if path is None and kind in self.broken:
            raise CheckpointError(f"the {kind.value} for {self.network} cannot be used: {self.broken[kind]}")
        if path is None:
            raise CheckpointError(
                f"no {kind.value} found for {self.network}; looked in {_listed(self.searched[kind])}; "
                f"`acestep download {_DOWNLOAD[kind]}` fetches it"
            )
        return path


def find_checkpoint(name_or_path: str | Path, search_roots: Sequence[str | Path] = ()) -> Checkpoint:
    """The model of that name (of the catalog, or a folder's in one of the roots), or at that path.

    A root, or a path, may be a folder of models, one model's folder, a ComfyUI models folder or a single file. The VAE
    and the text encoder are looked for inside, beside it, and in the roots. Raises CheckpointError.
    """
    roots = [Path(root).expanduser() for root in search_roots]
    name = str(name_or_path)
    network = _named(name, roots) if name in RELEASES else _at(Path(name).expanduser(), roots)
    source = open_network(network)
    bases = list(dict.fromkeys([*_around(source.path), *roots, *(root / "acestep" for root in roots)]))
    searched: dict[Kind, tuple[Path, ...]] = {}
    broken: dict[Kind, str] = {}
    vae = _find(Kind.VAE, source.path, bases, searched, broken)
    text_encoder = _find(Kind.TEXT_ENCODER, source.path, bases, searched, broken)
    return Checkpoint(
        name=name if name in RELEASES else source.path.name,
        layout=source.layout,
        variant=source.variant,
        network=source.path,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_tokenizer(text_encoder, bases, searched),
        searched=searched,
        broken=broken,
    )


def find_part(kind: Kind, name_or_path: str | Path, roots: Sequence[Path] = ()) -> Path:
    """A VAE or text encoder by its name in the catalog or its path, or that of a model which has it. Raises
    CheckpointError that says where it was looked for."""
    item = RELEASES.get(str(name_or_path))
    given, folders = Path(name_or_path).expanduser(), ("", "acestep", "vae", "text_encoders")
    below = [root / folder / given for root in roots for folder in folders if not given.is_absolute()]
    candidates = [given, *below] if item is None else places(item, roots)
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        listed = _listed(candidates)
        raise CheckpointError(f"no {name_or_path}; looked for {listed}; `acestep models` lists what can be fetched")
    broken: dict[Kind, str] = {}
    inside = _find(kind, found, [found], {}, broken)
    if inside is None and broken:
        raise CheckpointError(f"the {kind.value} of {found} cannot be used: {broken[kind]}")
    return inside or found


# A planner's name stands for all that hold the same one.
_SAME_PLANNER = {"lm-1.7b": ("comfy-lm-1.7b", "comfy-turbo-aio"), "lm-4b": ("comfy-lm-4b",)}


def find_planner(name_or_path: str | Path, search_roots: Sequence[str | Path] = ()) -> tuple[Path, Path | None]:
    """The planner LM of that name or at that path, and for a single file the folder of its tokenizer, if one is found.

    Raises CheckpointError that says where it was looked for.
    """
    roots = [Path(root).expanduser() for root in search_roots]
    name = str(name_or_path)
    item = RELEASES.get(name)
    if name == "nano":
        candidates = [NANO_PLANNER]
    elif item is None:
        path = Path(name).expanduser()
        candidates = [path, *(root / folder / path for root in roots for folder in ("", "acestep", "text_encoders"))]
    elif item.kind in (Kind.PLANNER, Kind.ALL_IN_ONE):
        releases = (item, *(RELEASES[other] for other in _SAME_PLANNER.get(name, ())))
        candidates = [path for release in releases for path in places(release, roots)]
    else:
        known = ", ".join(name for name, item in RELEASES.items() if item.kind is Kind.PLANNER)
        raise CheckpointError(f"{name} is a {item.kind.value}; name a planner LM: nano, {known}")
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        fetch = f"; `acestep download {name}` fetches it" if item and item.repo else ""
        raise CheckpointError(f"no planner LM {name!r}; looked for {_listed(dict.fromkeys(candidates))}{fetch}")
    path = open_planner(found).path
    bases = [*_around(path), *roots, *(root / "acestep" for root in roots)]
    return path, None if path.is_dir() else _tokenizer(path.parent, bases, {})


def _named(name: str, roots: Sequence[Path]) -> Path:
    """The diffusion model that a name of the catalog stands for; a variant's name stands for all its layouts."""
    item = RELEASES[name]
    if item.kind not in (Kind.NETWORK, Kind.ALL_IN_ONE):
        raise CheckpointError(f"{name} is a {item.kind.value}; name a diffusion model: nano, {', '.join(VARIANTS)}")
    same: Iterable[Release] = (item,)
    if name in VARIANTS:
        same = [other for other in RELEASES.values() if other.variant is item.variant]
    candidates = [path for other in same for path in places(other, roots)]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        fetch = f"; `acestep download {name}` fetches it" if item.repo else ""
        raise CheckpointError(f"{name} is not on this machine; looked for {_listed(candidates)}{fetch}")
    return _inside(found) if found == NANO else found


def _at(path: Path, roots: Sequence[Path]) -> Path:
    """The diffusion model at a path, or at that path below one of the roots."""
    folders = ("", "acestep", *_COMFY_FOLDERS)
    candidates = [path]
    if not path.is_absolute():
        candidates += [root / folder / path for root in roots for folder in folders]
    found = next((candidate for candidate in candidates if candidate.exists()), None)
    if found is None:
        names = ", ".join(name for name, item in RELEASES.items() if item.kind is not Kind.PLANNER)
        raise CheckpointError(f"no model {str(path)!r}; looked for {_listed(candidates)}; known names: {names}")
    return _inside(found)


def _inside(path: Path) -> Path:
    """The diffusion model in a folder of models: `path` itself when it is one, else the only one below it, or turbo."""
    if path.is_file() or is_diffusers(path) or weight_files(path):
        return path
    below = [folder for folder in sorted(path.iterdir()) if folder.is_dir()]
    networks = [folder for folder in below if folder.name not in _COMFY_FOLDERS and _is_network(folder)]
    if not networks:
        known = (path / item.target for item in RELEASES.values() if item.is_file and item.variant)
        networks = [file for file in known if file.is_file()][:1] or list(_comfy_networks(path))
    if not networks:
        read_table(path)  # refuses the folder and says why
    turbo = [network for network in networks if network.name == RELEASES["turbo"].target]
    if len(networks) > 1 and not turbo:
        names = ", ".join(str(network.relative_to(path)) for network in networks)
        raise CheckpointError(f"{path} holds several models; choose one of {names}")
    return (turbo or networks)[0]


def _comfy_networks(root: Path) -> Iterator[Path]:
    for folder in _COMFY_FOLDERS:
        yield from (file for file in sorted((root / folder).rglob("*.safetensors")) if _is_network(file))


def _is_network(path: Path) -> bool:
    try:
        open_network(path)
    except CheckpointError:
        return False
    return True


def _around(network: Path) -> list[Path]:
    """Folders whose sub-folders may hold the other parts: a model folder itself and its parent; for a file, those that
    it lies in, up to ComfyUI's models folder."""
    if network.is_dir():
        return [network, network.absolute().parent]
    return list(network.absolute().parents)[:3]


def _find(
    kind: Kind,
    network: Path,
    bases: Sequence[Path],
    searched: dict[Kind, tuple[Path, ...]],
    broken: dict[Kind, str],
) -> Path | None:
    """The VAE or the text encoder; notes where it was looked for, and what is wrong with the first that is broken."""
    folders, open_part, prefix = (
        (_VAE_FOLDERS, open_vae, vae_prefix) if kind is Kind.VAE else (_TEXT_FOLDERS, open_text_encoder, text_prefix)
    )
    if network.is_file() and prefix(read_table(network)) is not None:
        return network
    if is_diffusers(network) and any((network / folder).is_dir() for folder in folders):
        return network
    candidates = [base / folder for base in bases for folder in folders]
    searched[kind] = tuple(candidates)
    known = [item.target for item in RELEASES.values() if item.kind is kind and item.is_file]
    for path in (path for folder in candidates if folder.is_dir() for path in _models_in(folder, known)):
        try:
            open_part(path)
        except CheckpointError as error:
            if _is_meant(path, prefix):
                broken.setdefault(kind, str(error))
            continue
        return path
    return None


def _is_meant(path: Path, prefix: Callable[[Table], str | None]) -> bool:
    """Whether a refused file or folder is one of that kind after all, or cannot even be read."""
    try:
        return prefix(read_table(path)) is not None
    except CheckpointError:
        return True


def _models_in(folder: Path, known: Sequence[str]) -> Iterator[Path]:
    """The folder itself when it is a model's, whole or not; else its files, those of the catalog first."""
    try:
        is_model = bool(weight_files(folder))
    except CheckpointError:  # some of its shards are missing
        is_model = True
    if is_model:
        yield folder
        return
    first = [folder.parent / target for target in known if (folder.parent / target).is_file()]
    yield from dict.fromkeys([*first, *sorted(folder.rglob("*.safetensors"))])


def _tokenizer(text_encoder: Path | None, bases: Sequence[Path], searched: dict[Kind, tuple[Path, ...]]) -> Path | None:
    """Its folder, with the text encoder or without: a text encoder named by hand needs one too."""
    own: list[Path] = []
    if text_encoder is not None:
        own = [text_encoder, text_encoder / "tokenizer"] if text_encoder.is_dir() else [text_encoder.parent]
    candidates = [*own, *(base / folder for base in bases for folder in _TOKENIZER_FOLDERS)]
    searched[Kind.TOKENIZER] = tuple(candidates)
    return next((folder for folder in candidates if has_tokenizer(folder)), None)


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(str(path) for path in paths)
