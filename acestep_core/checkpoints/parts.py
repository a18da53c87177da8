"""Search the folders around a diffusion model for its VAE, its text encoder and its tokenizer."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .catalog import RELEASES, Kind
from .contents import text_prefix, vae_prefix
from .gguf_header import gguf_kind, is_gguf
from .installed import has_tokenizer
from .layouts import CheckpointSource, is_diffusers
from .qwen3_layouts import open_text_encoder
from .reader import TensorIndex, read_index
from .shards import weight_files
from .vae_layouts import open_vae

_FOLDERS = {
    Kind.VAE: ("vae",),
    Kind.TEXT_ENCODER: ("Qwen3-Embedding-0.6B", "text_encoder", "text_encoders", "clip"),
    Kind.TOKENIZER: ("Qwen3-Embedding-0.6B", "tokenizer", "text_encoders"),
}
PART_FOLDERS = frozenset(name for names in _FOLDERS.values() for name in names)
_OPEN: dict[Kind, Callable[[Path], CheckpointSource[Any]]] = {Kind.VAE: open_vae, Kind.TEXT_ENCODER: open_text_encoder}
_PREFIX = {Kind.VAE: vae_prefix, Kind.TEXT_ENCODER: text_prefix}


class PartSearch:
    """Search for the parts of a model below `bases`.

    searched: the folders that were searched for each part.
    broken: the error of the first unusable file of each part.
    """

    def __init__(self, bases: Iterable[Path]):
        self._bases = tuple(dict.fromkeys(bases))
        self.searched: dict[Kind, tuple[Path, ...]] = {}
        self.broken: dict[Kind, str] = {}

    def find(self, kind: Kind, model: Path) -> Path | None:
        """Return the VAE or text encoder inside `model`, else the first usable one below the bases."""
        if os.path.isfile(model) and _PREFIX[kind](read_index(model)) is not None:
            return model
        if is_diffusers(model) and any(os.path.isdir(model / folder) for folder in _FOLDERS[kind]):
            return model
        candidates = self._candidates(kind)
        known = [item.target for item in RELEASES.values() if item.kind is kind and item.is_file]
        beside = sorted(model.parent.glob("*.gguf")) if is_gguf(model) else []  # GGUF files usually share a folder
        below = (path for folder in candidates if os.path.isdir(folder) for path in _models_in(folder, known))
        for path in itertools.chain(beside, below):
            if is_gguf(path) and gguf_kind(path) is not kind:
                continue
            try:
                _OPEN[kind](path)
            except CheckpointError as error:
                if _is_broken(path, _PREFIX[kind]):
                    self.broken.setdefault(kind, str(error))
                continue
            return path
        return None

    def find_tokenizer(self, text_encoder: Path | None) -> Path | None:
        """Return the tokenizer's folder. Also search without a text encoder: one that the user chooses needs it."""
        own: list[Path] = []
        if text_encoder is not None:
            own = [text_encoder, text_encoder / "tokenizer"] if os.path.isdir(text_encoder) else [text_encoder.parent]
        candidates = self._candidates(Kind.TOKENIZER, own)
        return next((folder for folder in candidates if has_tokenizer(folder)), None)

    def _candidates(self, kind: Kind, first: Sequence[Path] = ()) -> tuple[Path, ...]:
        self.searched[kind] = (*first, *(base / folder for base in self._bases for folder in _FOLDERS[kind]))
        return self.searched[kind]


def folders_around(model: Path) -> list[Path]:
    """Return the folders whose sub-folders may hold the other parts.

    For a model folder: itself and its parent. For a file: the folders above it, up to ComfyUI's models folder.
    """
    if os.path.isdir(model):
        return [model, model.absolute().parent]
    return list(model.absolute().parents)[:3]


def _is_broken(path: Path, prefix: Callable[[TensorIndex], str | None]) -> bool:
    """Return True if a refused file or folder is of the right kind or unreadable; False if it is another model."""
    try:
        return prefix(read_index(path)) is not None
    except CheckpointError:
        return True


def _models_in(folder: Path, known: Sequence[str]) -> Iterator[Path]:
    """Yield the folder if it is a model's, complete or not; else its files, those of the catalog first, GGUF last."""
    try:
        is_model = bool(weight_files(folder))
    except CheckpointError:  # some shards are missing
        is_model = True
    if is_model:
        yield folder
        return
    first = [folder.parent / target for target in known if os.path.isfile(folder.parent / target)]
    yield from dict.fromkeys([*first, *sorted(folder.rglob("*.safetensors")), *sorted(folder.rglob("*.gguf"))])
