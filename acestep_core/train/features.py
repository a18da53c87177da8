"""Encode songs once: latents of the audio, and the rows that the transformer attends to.

The features lie in a folder, one file each, named by a hash of all that they depend on. An interrupted run thus
continues, and a changed caption encodes only its own text again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..audio import read_audio
from ..callbacks import Callbacks
from ..config import FRAME_RATE, MAX_SECONDS, SAMPLE_RATE
from ..errors import NonFiniteError, RequestError
from ..files import atomic_write
from ..load import Model
from ..models.model import AceStepModel
from ..pipeline import encode, encode_audio
from ..sampling.conditions import encode_conditions
from ..song.song import Song
from ..text.encoder import TextCondition
from .checks import CheckedAudio

VERSION = 1  # of the features; raise it when the same inputs give other values
_EDGE = 2**20  # bytes hashed at each end of a weight file


@dataclass(frozen=True)
class Features:
    """The inputs of training for one song, on the CPU.

    latents: [T, 64], float32. condition: rows [1, S, e].
    """

    latents: Tensor
    condition: Tensor


class FeatureFolder:
    """A folder of features, each in a safetensors file."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"{folder} cannot be created: {error.strerror or error}; choose another work folder"
            ) from error

    def path(self, kind: str, *dependencies: object) -> Path:
        """Return the file of a feature that depends on these values."""
        text = "\n".join([f"features {VERSION}", kind, *map(str, dependencies)])
        return self.folder / f"{kind}-{hashlib.sha256(text.encode('utf-8')).hexdigest()[:24]}.safetensors"

    def read(self, path: Path) -> dict[str, Tensor] | None:
        """Return the tensors of a feature, or None if it is not there or damaged."""
        try:
            return load_file(path)
        except (OSError, SafetensorError):
            return None

    def latents(self, path: Path) -> Tensor:
        """Return encoded latents [T, 64]. Raises RequestError if the file was lost since it was written."""
        stored = self.read(path)
        if stored is None:
            raise RequestError(f"{path} cannot be read; run the command again")
        return stored["latents"]

    def write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        try:
            with atomic_write(path) as file:
                file.write(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
        except OSError as error:
            raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error


def default_work_folder(dataset: Path) -> Path:
    """Return the folder of features and runs beside a dataset."""
    path = dataset.resolve()
    return path.with_name(f"{path.stem if path.suffix.lower() == '.json' else path.name}.train")


def encode_latents(
    load: Callable[[], Model], audio: Sequence[CheckedAudio], folder: FeatureFolder, identity: str, callbacks: Callbacks
) -> list[Path]:
    """Encode each recording that is not encoded yet. Return the files, in the order of `audio`.

    load: returns a model with the VAE. It runs only if a recording is not encoded yet.
    identity: of the VAE, see `weights_identity`. Raises the errors of `read_audio` and `encode_audio`.
    """
    paths = [folder.path("latents", each.sha256, identity) for each in audio]
    for number, (each, path) in enumerate(zip(audio, paths, strict=True), 1):
        callbacks.check("encode songs")
        if folder.read(path) is None:
            latents = encode_audio(load(), read_audio(each.path), SAMPLE_RATE, callbacks=_quiet(callbacks))
            folder.write(path, {"latents": latents[0]})
        callbacks.report("encode songs", number, len(paths))
    return paths


def encode_texts(
    load: Callable[[], Model], songs: Sequence[Song], folder: FeatureFolder, identity: str, callbacks: Callbacks
) -> list[TextCondition]:
    """Encode caption and lyrics with the prompts of inference. The results are on the CPU.

    load: returns a model with the text encoder, see `encode_latents`.
    identity: of the text encoder and the form of the prompts. Raises NonFiniteError and Cancelled.
    """
    conditions = []
    for number, song in enumerate(songs, 1):
        callbacks.check("encode texts")
        # All of the song that a prompt contains.
        path = folder.path("text", identity, repr(song))
        stored = folder.read(path)
        if stored is None:
            condition = encode(load(), song, callbacks=_quiet(callbacks))
            stored = {"caption": condition.caption.cpu(), "lyrics": condition.lyrics.cpu()}
            folder.write(path, stored)
        conditions.append(TextCondition(stored["caption"], stored["lyrics"], song.caption, song.lyrics))
        callbacks.report("encode texts", number, len(songs))
    return conditions


def encode_text_rows(network: AceStepModel, conditions: Sequence[TextCondition], device: torch.device) -> list[Tensor]:
    """Return the rows [1, S, e] of each text on the CPU. The network is ready to run on `device`."""
    rows = []
    with torch.no_grad():
        for condition in conditions:
            (encoded,) = encode_conditions(network, [condition], device)
            if not encoded.isfinite().all():
                raise NonFiniteError(
                    f"condition encoder: NaN or infinity in {encoded.dtype}; train in bfloat16 or float32"
                )
            rows.append(encoded.cpu())
    return rows


def timed(song: Song, latents: Tensor) -> Song:
    """Return a song with the duration of its latents [T, 64], as inference has it."""
    duration = min(len(latents) / FRAME_RATE, MAX_SECONDS)
    return replace(song, metadata=replace(song.metadata, duration=duration))


def weights_identity(paths: Iterable[Path], *more: object) -> str:
    """Return a hash of weight files and of other values: names, sizes and both ends of each file."""
    digest = hashlib.sha256("\n".join(map(str, more)).encode())
    for path in paths:
        files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
        for file in files:
            size = os.path.getsize(file)
            digest.update(f"{file.name} {size}".encode("utf-8", "surrogateescape"))
            with file.open("rb") as content:
                digest.update(content.read(_EDGE))
                content.seek(max(0, size - _EDGE))
                digest.update(content.read(_EDGE))
    return digest.hexdigest()


def _quiet(callbacks: Callbacks) -> Callbacks:
    """Return callbacks that report no tiles: a stage of training reports songs."""
    return Callbacks(cancelled=callbacks.cancelled, warning=callbacks.warning)
