"""Train an adapter on a dataset, from audio files to an adapter file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..audio import write_audio
from ..callbacks import Callbacks
from ..checkpoints.silence import ensure_silence
from ..errors import RequestError
from ..files import check_output_path
from ..load import Model, prompt_style, recommended
from ..models.model import AceStepModel
from ..models.oobleck import OobleckVAE
from ..pipeline import decode, sample
from ..runtime.devices import Precision, pick_device, pick_dtype
from ..runtime.options import pick_storage
from ..runtime.phase import phase
from ..runtime.placement import Offload
from ..song.song import Metadata, Song
from ..text.encoder import TextCondition
from .checks import CheckedDataset, check_dataset, dataset_hash
from .examples import Dataset
from .features import (
    FeatureFolder,
    Features,
    default_work_folder,
    encode_latents,
    encode_text_rows,
    encode_texts,
    timed,
    weights_identity,
)
from .held_out import choose_held_out
from .model_parts import ModelParts
from .optimizers import check_optimizer
from .results import BestAdapter, TrainedAdapter, TrainingOrigin, best_output, check_card, write_results
from .song_folder import read_dataset
from .train_loop import TrainingRun
from .train_settings import TrainSettings
from .train_state import LOSSES, STATE, stored_run
from .trainable import Trainable

CONTINUED = ("steps", "patience")  # settings with which a run may continue differently
SAMPLE_SECONDS = 20.0
SAMPLE_SEED = 7


@dataclass(frozen=True)
class SampleSongs:
    """Songs to make during the training.

    every: steps between two songs; 0 makes none.
    song: None takes caption and first verse of the first song of the dataset, and lasts 20 seconds.
    seed: the same for all songs, so that only the adapter differs.
    """

    every: int = 0
    song: Song | None = None
    seed: int = SAMPLE_SEED


def train_adapter(
    dataset: str | Path | Dataset | CheckedDataset,
    output: str | Path,
    *,
    settings: TrainSettings | None = None,
    model: str | Path = "nano",
    vae: str | Path | None = None,
    text_encoder: str | Path | None = None,
    tokenizer: str | Path | None = None,
    variant: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    storage: str | None = None,
    recompute: bool | None = None,
    work: str | Path | None = None,
    restart: bool = False,
    save_every: int = 50,
    samples: SampleSongs | None = None,
    models_dir: str | None = None,
    callbacks: Callbacks | None = None,
) -> TrainedAdapter:
    """Train an adapter on songs and write it. If the work folder holds the same run, continue it.

    Only the number of steps and the patience may change. There are at least as many steps as in the stored state; their
    learning rate applies from there on.

    dataset: a folder, a dataset file of the original trainer, or the result of `read_dataset` or `check_dataset`.
    output: the `.safetensors` file of the adapter. Its card has the same name with `.md`, and with held-out songs, the
        adapter of the step with their lowest loss has it with `-best`.
    model, vae, text_encoder, tokenizer, variant, models_dir: as for `load_model`.
    dtype: to compute in; the factors are float32. "auto" is bfloat16 if the device computes in it, else float32.
    storage: "int8" or "fp8" for the frozen matrices of the transformer.
    recompute: True computes the activations of each layer twice, which needs less memory. None is True on GPUs and
        with `storage`.
    work: the folder of features, states, loss table and samples. By default its name is that of the dataset with
        `.train`.
    restart: True starts again instead of continuing a run.
    save_every: steps between two states.

    Raises RequestError, CheckpointError, NonFiniteError and Cancelled. The next call continues a cancelled run.
    """
    settings, callbacks = settings or TrainSettings(), callbacks or Callbacks()
    output, samples = _check_output(output), samples or SampleSongs()
    if settings.held_out:
        check_output_path(best_output(output))
    check_card(output)
    _check_counts(save_every, samples)
    check_optimizer(settings)
    checked = _checked(dataset, callbacks)
    checked.require_songs()
    held_out = choose_held_out([each.path.name for each in checked.audio], settings)
    device = pick_device(device)
    parts = ModelParts(model, vae, text_encoder, variant, models_dir, callbacks, tokenizer)
    compute, storage_dtype = _training_dtype(device, dtype), pick_storage(device, storage)
    work_folder = Path(work) if work is not None else default_work_folder(checked.dataset.path)
    folder = work_folder / output.stem
    _make_folder(folder)
    songs = checked.dataset.songs()
    songs_hash = dataset_hash(checked.audio, [repr(song) for song in songs])
    identity = {
        "settings": settings.to_dict(),
        "songs": songs_hash,
        "model": weights_identity([parts.network], variant),
        "storage": storage,
        "dtype": str(compute),
    }
    _prepare_folder(folder, identity, restart)
    encoded = _encode(parts, checked, samples, FeatureFolder(work_folder / "features"), device, dtype, callbacks)
    network = parts.load_network(compute, storage_dtype)
    prepared = _features(network, encoded, device)
    trained = [each for place, each in enumerate(prepared) if place not in held_out]
    sampler = _Sampler(network, encoded, samples, folder, device, callbacks) if samples.every else None
    run = TrainingRun(
        network,
        trained,
        settings,
        folder,
        device,
        identity,
        save_every,
        (device.type != "cpu" or storage_dtype is not None) if recompute is None else recompute,
        [prepared[place] for place in held_out],
    )
    with phase("train", device, compute):
        state, losses = run.train(callbacks, samples.every, sampler)
    triggers = checked.dataset.triggers
    origin = TrainingOrigin(
        base_model=Path(str(model)).name,
        variant=network.config.model_version,
        songs=len(trained),
        seconds=sum(each.seconds for place, each in enumerate(checked.audio) if place not in held_out),
        dataset_hash=songs_hash,
        trigger=", ".join(triggers),
        example=songs[0].caption,
        settings=settings,
        held_out=len(held_out),
    )
    songs_of_steps = sampler.files() if sampler else []
    with state.result():
        adapter = state.trainable.adapter(output.stem, triggers)
    best = None
    if state.best is not None:
        with state.trainable.holding(state.best.factors):
            name = best_output(output).stem
            best = BestAdapter(state.trainable.adapter(name, triggers), state.best.step, state.best.loss)
    return write_results(adapter, best, output, folder / f"{output.stem}-peft", origin, losses, songs_of_steps)


@dataclass(frozen=True)
class _Encoded:
    """An encoded dataset.

    latents: [T, 64] of each song. conditions: the texts of each song. sample: the text of the sample songs, if any.
    vae: a function that loads the VAE, once.
    """

    latents: Sequence[Tensor]
    conditions: Sequence[TextCondition]
    sample: TextCondition | None
    sample_seconds: float
    vae: Callable[[], OobleckVAE]


def _encode(
    parts: ModelParts,
    checked: CheckedDataset,
    samples: SampleSongs,
    folder: FeatureFolder,
    device: torch.device,
    dtype: str | torch.dtype,
    callbacks: Callbacks,
) -> _Encoded:
    """Encode audio and texts that are not encoded yet. The text encoder leaves memory."""
    precision, placement = Precision.pick(device, dit=dtype), Offload(device)
    style = prompt_style(parts.described)
    vae = functools.cache(lambda: parts.load_vae(device, precision.vae))
    with_vae = functools.cache(lambda: Model(vae=vae(), placement=placement))
    paths = encode_latents(with_vae, checked.audio, folder, weights_identity([parts.vae], precision.vae), callbacks)
    latents = [folder.latents(path) for path in paths]

    songs = [timed(song, each) for song, each in zip(checked.dataset.songs(), latents, strict=True)]
    sample_song = (samples.song or _first_verse(songs[0])) if samples.every else None
    texts = [*songs, *([] if sample_song is None else [sample_song])]
    with_text = functools.cache(
        lambda: Model(text_encoder=parts.load_text_encoder(precision.text_encoder), placement=placement, style=style)
    )
    identity = weights_identity([parts.text_encoder], precision.text_encoder, style)
    conditions = encode_texts(with_text, texts, folder, identity, callbacks)
    seconds = SAMPLE_SECONDS if sample_song is None else sample_song.metadata.duration or SAMPLE_SECONDS
    return _Encoded(latents, conditions[: len(songs)], conditions[-1] if sample_song else None, seconds, vae)


def _features(network: AceStepModel, encoded: _Encoded, device: torch.device) -> list[Features]:
    """Return the features of each song, and move the transformer alone to the device."""
    if network.silence_latent is None:
        vae = encoded.vae()
        with Offload(device).use(vae):
            ensure_silence(network, vae)
    with Offload(device).use(network.encoder):
        rows = encode_text_rows(network, encoded.conditions, device)
    network.decoder.to(device)
    network.null_condition_emb = nn.Parameter(network.null_condition_emb.detach().to(device), requires_grad=False)
    return [Features(*pair) for pair in zip(encoded.latents, rows, strict=True)]


class _Sampler:
    """Makes the song of one seed with the factors of a step."""

    def __init__(
        self,
        network: AceStepModel,
        encoded: _Encoded,
        samples: SampleSongs,
        folder: Path,
        device: torch.device,
        callbacks: Callbacks,
    ):
        self._model = Model(
            network=network, vae=encoded.vae(), defaults=recommended(network), placement=Offload(device)
        )
        assert encoded.sample is not None
        self._condition, self._seconds = encoded.sample, encoded.sample_seconds
        self._seed, self._folder, self._callbacks = samples.seed, folder, callbacks

    def __call__(self, step: int, trainable: Trainable) -> None:
        path = self._folder / f"step-{step:06d}.flac"
        if path.exists():
            return
        quiet = Callbacks(cancelled=self._callbacks.cancelled, warning=self._callbacks.warning)
        with trainable.attached():
            latents = sample(self._model, self._condition, seconds=self._seconds, seeds=[self._seed], callbacks=quiet)
        write_audio(path, decode(self._model, latents, callbacks=quiet)[0])

    def files(self) -> list[Path]:
        return sorted(self._folder.glob("step-*.flac"))


# --- checks and folders -----------------------------------------------------------------------------------------------


def _checked(dataset: str | Path | Dataset | CheckedDataset, callbacks: Callbacks) -> CheckedDataset:
    if isinstance(dataset, CheckedDataset):
        return dataset
    checked = check_dataset(dataset if isinstance(dataset, Dataset) else read_dataset(dataset), callbacks)
    for problem in checked.problems:
        callbacks.warn(str(problem))
    return checked


def _check_output(output: str | Path) -> Path:
    path = Path(output).expanduser()
    if path.suffix.lower() != ".safetensors":
        raise RequestError(f"output must be the name of a .safetensors file, got {path}")
    return check_output_path(path)


def _check_counts(save_every: int, samples: SampleSongs) -> None:
    for name, value, least in (("save_every", save_every, 1), ("samples.every", samples.every, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise RequestError(f"{name} must be a whole number from {least}, got {value!r}")


def _training_dtype(device: torch.device, dtype: str | torch.dtype) -> torch.dtype:
    """Return the dtype of the transformer. In float16 gradients would vanish."""
    picked = pick_dtype(device, "dit", dtype)
    if picked != torch.float16:
        return picked
    if dtype != "auto":
        raise RequestError("dtype must be bfloat16 or float32 for training: the gradients of float16 vanish")
    return torch.float32


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{folder} cannot be created: {error.strerror or error}") from error


def _prepare_folder(folder: Path, run: Mapping[str, Any], restart: bool) -> None:
    """Delete an older run, or check that it is this run. Raises RequestError."""
    if restart:
        for path in (folder / STATE, folder / LOSSES, *folder.glob("step-*.flac")):
            path.unlink(missing_ok=True)
    stored = stored_run(folder / STATE)
    if stored is None:
        return
    step, before = stored
    earlier = {**TrainSettings().to_dict(), **before.get("settings", {})}  # older runs have fewer settings
    changed = [name for name in run if name != "settings" and run[name] != before.get(name)]
    changed += [name for name, value in run["settings"].items() if value != earlier[name] and name not in CONTINUED]
    if run["settings"]["steps"] < step:
        changed.append("steps")
    if changed:
        raise RequestError(
            f"{folder} holds a run after {step} steps with another {', '.join(sorted(changed))}; use the same values "
            "to continue it, restart it, or choose another output"
        )


def _first_verse(song: Song) -> Song:
    """Return the song of the samples: a caption, and its lyrics up to the second empty line."""
    lyrics = "\n\n".join(song.lyrics.strip().split("\n\n")[:2])
    duration = min(SAMPLE_SECONDS, song.metadata.duration or SAMPLE_SECONDS)
    return replace(song, lyrics=lyrics, metadata=replace(song.metadata or Metadata(), duration=duration))
