"""The stages of a song: load, encode, sample, decode. `generate` runs all of them.

Each stage takes a `Model` and moves only the network that it needs to the device, through the model's placement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from .adapters.recorded_adapter import RecordedAdapter
from .audio import anti_clip, check_waveform, dropped_channels, is_finite, normalize_peak, resample, to_stereo
from .callbacks import Callbacks
from .config import FRAME_RATE, SAMPLE_RATE
from .edit.edit import Edit
from .edit.kept_parts import restore_kept_parts
from .edit.morph import Morph
from .edit.source import check_latents, with_source_duration
from .edit.tasks import TEXT2MUSIC, Task, find_task
from .errors import NonFiniteError, RequestError
from .load import Model, load_model, recommended
from .models.oobleck import OobleckVAE
from .models.tiling import decode_tiled, encode_tiled, fitting_tile
from .recipe import Recipe, unrecorded
from .runtime.phase import phase
from .sampling.code_latents import tokenize_latents
from .sampling.conditions import encode_conditions
from .sampling.prepare import prepare
from .sampling.request import SampleRequest, frames_of, source_frames
from .sampling.settings import SamplingSettings
from .sampling.velocity import SecondNetwork
from .song.codes import Codes
from .song.seeds import distinct_seeds, random_seed
from .song.song import Metadata, Song
from .text.prompts import DEFAULT_SECONDS

if TYPE_CHECKING:
    from .text.encoder import TextCondition

__all__ = [
    "Model",
    "Result",
    "decode",
    "encode",
    "encode_audio",
    "encode_conditions",
    "frames_of",
    "generate",
    "load_model",
    "recommended",
    "sample",
    "tokenize",
]

Part = TypeVar("Part")


@dataclass(frozen=True)
class Result:
    """A batch of songs, float32 on the CPU.

    waveform: [B, 2, samples] at `sample_rate` Hz.
    latents: [B, T, 64].
    songs, seeds: one per item.
    settings: with every default filled in.
    codes: audio codes, one tuple per item, one for all items, or none.

    The rest is as in `Recipe`.
    """

    waveform: Tensor
    sample_rate: int
    latents: Tensor
    songs: tuple[Song, ...]
    seeds: tuple[int, ...]
    settings: SamplingSettings
    normalize: bool
    origin: Mapping[str, str]
    codes: Sequence[Codes] = ()
    unrecorded: tuple[str, ...] = ()
    adapters: tuple[RecordedAdapter, ...] = ()

    def recipe(self, item: int = 0) -> Recipe:
        """Return the recipe that generates this item again, alone."""
        codes = self.codes[item % len(self.codes)] if self.codes else ()
        song, seed = self.songs[item], self.seeds[item]
        return Recipe(
            song, seed, self.settings, self.normalize, self.origin, codes, self.unrecorded, adapters=self.adapters
        )


def encode(
    model: Model,
    song: Song,
    task: Task | str = TEXT2MUSIC,
    tracks: Sequence[str] = (),
    *,
    whole_caption: str = "",
    explicit_mask: bool = True,
    callbacks: Callbacks | None = None,
) -> TextCondition:
    """Encode caption, metadata and lyrics of a song under the instruction of a task.

    task, tracks: as in the `Edit`. The song must have the duration of the edit.
    whole_caption: caption of the whole song, for models trained on stems alone.
    explicit_mask: `not edit.auto_mask`, for models trained on stems alone.

    Raises RequestError, NonFiniteError and Cancelled.
    """
    _check_song(song)
    return _encode(model, song, find_task(task), tracks, whole_caption, explicit_mask, callbacks or Callbacks())


def sample(
    model: Model,
    conditions: TextCondition | Sequence[TextCondition],
    *,
    seconds: float | None = None,
    seeds: Sequence[int],
    settings: SamplingSettings | None = None,
    edit: Edit | None = None,
    morph: Morph | None = None,
    timbre: Sequence[Tensor] | None = None,
    retake: tuple[int | Sequence[int], float] | None = None,
    negative: TextCondition | Sequence[TextCondition] = (),
    callbacks: Callbacks | None = None,
) -> Tensor:
    """Sample latents [len(seeds), T, 64], float32 on the CPU.

    conditions: one for all songs or one per song, encoded with the task of the edit (`Edit.task_of`).
    seconds: the duration of the song. The source of an edit or morph sets its own.
    seeds: below 2**64, as in ComfyUI. Only the lower 32 bits select the starting noise, as in KSampler.
    settings: None values take the defaults of the model variant.
    edit, morph: what to do with a source, for one song or for as many as there are seeds.
    timbre: reference latents [1, T, 64] of any length, see `audio.reference`.
    retake: a seed (or one per song) and the variance, from 0 (the same take) to 1 (the take of that seed).
    negative: text that guidance leads away from, for all songs or one per song, instead of the negative caption of
        `settings`.

    Raises RequestError, NonFiniteError and Cancelled.
    """
    _check_types(settings, edit, morph)
    config = _part(model.network, "diffusion model").config
    sampling = (settings or SamplingSettings()).resolve(model.defaults)
    conditions, negative = (list(texts) if isinstance(texts, Sequence) else [texts] for texts in (conditions, negative))
    request = SampleRequest(config, sampling, seeds, seconds, edit, morph, timbre, retake, model.graphs)
    request.check_conditions(conditions, negative)
    return _sample(model, request, conditions, callbacks or Callbacks(), negative)


def tokenize(model: Model, latents: Tensor, callbacks: Callbacks | None = None) -> tuple[Codes, ...]:
    """Return the audio codes of latents [B, T, 64], five per second, song by song. Raises RequestError, Cancelled."""
    network = _part(model.network, "diffusion model")
    latents, callbacks = check_latents(latents), callbacks or Callbacks()
    callbacks.check("tokenize")
    with (
        torch.inference_mode(),
        model.placement.use(network) as device,
        phase("tokenize", device, network.encoder.dtype),
    ):
        return tokenize_latents(network, latents, device, callbacks)


def decode(
    model: Model,
    latents: Tensor,
    *,
    normalize: bool = True,
    edit: Edit | None = None,
    tile_frames: int = 512,
    overlap_frames: int = 9,
    callbacks: Callbacks | None = None,
) -> Tensor:
    """Decode latents [B, T, 64] to a waveform [B, 2, 1920 T], float32 on the CPU, within −1…1.

    normalize: True brings the peak of each item to −1 dBFS. False only scales items that clip, to a peak of 1.
    edit: the edit that the latents were sampled with. If the edit keeps parts of its source and has the waveform,
        these parts are restored sample for sample, at the source's own level, even above full scale. The generated
        parts are matched to that level and kept from clipping. The result has the length of the source.
    tile_frames: the largest number of frames to decode at once, which bounds the memory.
    overlap_frames: frames that neighbouring tiles share.

    Raises RequestError, NonFiniteError and Cancelled.
    """
    _check_types(None, edit, None)
    vae, callbacks = _part(model.vae, "VAE"), callbacks or Callbacks()
    channels = vae.config.decoder_input_channels
    if not isinstance(latents, Tensor):
        raise RequestError(f"latents must be a tensor [batch, frames, {channels}], got {type(latents).__name__}")
    if latents.ndim != 3 or 0 in latents.shape or latents.shape[2] != channels:
        raise RequestError(f"latents must be [batch, frames, {channels}], got a tensor of shape {list(latents.shape)}")
    if not torch.isfinite(latents).all():
        raise NonFiniteError("decode: the latents contain NaN or infinity; the song was not sampled properly")
    if (latents == 0).all(dim=2).all(dim=1).any():
        raise RequestError("latents: empty (all zero), which decodes to a drone; sample a song first")
    with model.placement.use(vae) as device, phase("decode", device, vae.dtype):
        waveform = decode_tiled(
            vae, latents.float(), fitting_tile(device, tile_frames), overlap_frames, callbacks, device
        )
    _require_finite(waveform, "decode", vae)
    if edit is not None and edit.restores_source:
        return restore_kept_parts(waveform, edit, callbacks)
    return (normalize_peak if normalize else anti_clip)(waveform, out=waveform)  # in place, as ten minutes are 230 MB


def encode_audio(
    model: Model,
    waveform: Tensor,
    sample_rate: float,
    *,
    tile_frames: int = 750,
    overlap_frames: int = 7,
    callbacks: Callbacks | None = None,
) -> Tensor:
    """Encode audio [B, channels, samples] of any rate to latents [B, T, 64], float32 on the CPU.

    Zeros fill the last frame. Samples beyond −1…1 are clipped. Tiles as in `decode`.

    Raises RequestError for empty, silent or non-finite audio, NonFiniteError and Cancelled.
    """
    vae, callbacks = _part(model.vae, "VAE"), callbacks or Callbacks()
    check_waveform(waveform, sample_rate)
    for warning in dropped_channels(waveform):
        callbacks.warn(warning)
    waveform = resample(to_stereo(waveform), sample_rate).clamp(-1, 1)  # as in the original and the VAE's training
    with model.placement.use(vae) as device, phase("encode audio", device, vae.dtype):
        latents = encode_tiled(vae, waveform, fitting_tile(device, tile_frames), overlap_frames, callbacks, device)
    _require_finite(latents, "encode audio", vae)
    return latents


def generate(
    model: Model,
    song: Song | Sequence[Song],
    *,
    batch: int = 1,
    seed: int | Sequence[int] | None = None,
    settings: SamplingSettings | None = None,
    normalize: bool = True,
    edit: Edit | None = None,
    morph: Morph | None = None,
    timbre: Sequence[Tensor] | None = None,
    retake: tuple[int | Sequence[int], float] | None = None,
    callbacks: Callbacks | None = None,
) -> Result:
    """Generate `batch` versions of a song, or of each of several songs of one duration.

    seed: item i gets `seed` + i, or entry i of a list, below 2**32. None takes a random seed.
    edit, morph: with one source for all songs or one per song.
    normalize: as in `decode`. The other parameters are as in `sample`.

    A song without a duration takes the duration of its source, or 30 seconds.

    Raises RequestError, NonFiniteError and Cancelled.
    """
    _check_types(settings, edit, morph)
    callbacks = callbacks or Callbacks()
    songs = list(song) if isinstance(song, Sequence) and not isinstance(song, str) else [song]
    for item in songs:
        _check_song(item)
    if not isinstance(batch, int) or batch < 1 or not songs:
        raise RequestError(f"batch and the number of songs must be at least 1, got {batch!r} for {len(songs)} songs")
    songs = [with_source_duration(item, edit, morph) for item in songs]
    durations = {item.metadata.duration or float(DEFAULT_SECONDS) for item in songs}
    if len(durations) > 1:
        given = ", ".join(f"{duration:g}" for duration in sorted(durations))
        raise RequestError(f"song: all songs of a batch must have one duration, got {given} seconds")
    seconds = None if source_frames(edit, morph) else durations.pop()
    seeds = distinct_seeds(random_seed() if seed is None else seed, batch * len(songs))
    takes = None if edit is None else edit.repeated(batch)
    morphed_takes = None if morph is None else morph.repeated(batch)
    config = _part(model.network, "diffusion model").config
    sampling = (settings or SamplingSettings()).resolve(model.defaults)
    request = SampleRequest(config, sampling, seeds, seconds, takes, morphed_takes, timbre, retake, model.graphs)
    distinct_seeds(request.retake_seeds, len(seeds))
    conditions = [_encode_item(model, item, edit, place, callbacks) for place, item in enumerate(songs)]
    latents = _sample(model, request, [condition for condition in conditions for _ in range(batch)], callbacks)
    return Result(
        waveform=decode(model, latents, normalize=normalize, edit=takes, callbacks=callbacks),
        sample_rate=SAMPLE_RATE,
        latents=latents,
        songs=tuple(item for item in songs for _ in range(batch)),
        seeds=tuple(seeds),
        settings=sampling.settings,
        normalize=normalize,
        origin=model.origin,
        codes=() if takes is None else takes.codes,
        unrecorded=unrecorded(edit, morph, timbre, retake),
        adapters=model.adapters,
    )


def _check_song(song: object) -> None:
    if not isinstance(song, Song):
        raise RequestError(f'song must be a Song, such as Song("warm piano"), got {song!r}')


def _check_types(settings: object, edit: object, morph: object) -> None:
    for name, given, kind in (("settings", settings, SamplingSettings), ("edit", edit, Edit), ("morph", morph, Morph)):
        if given is not None and not isinstance(given, kind):
            raise RequestError(f"{name} must be an object of {kind.__name__}, or None, got {given!r:.80}")


def _part(part: Part | None, name: str) -> Part:
    if part is None:
        raise RequestError(f"model: loaded without a {name}, which this stage needs; load a model that has one")
    return part


def _sample(
    model: Model,
    request: SampleRequest,
    conditions: Sequence[TextCondition],
    callbacks: Callbacks,
    negative: Sequence[TextCondition] = (),
) -> Tensor:
    network = _part(model.network, "diffusion model")
    for warning in request.warnings:
        callbacks.warn(warning)
    negative = _negative(model, request, negative, callbacks)
    callbacks.check("sample")
    half = model.second if request.sampling.guidance.enabled else None
    with (
        torch.inference_mode(),
        model.placement.use(network) as device,
        nullcontext() if half is None else _second_network(half) as second,
        phase("sample", device, network.decoder.dtype),
    ):
        latents = prepare(network, request, conditions, device, callbacks, negative, second).run(callbacks).cpu()
    return latents.clone()  # outside of inference mode, so that the caller may change it


@contextmanager
def _second_network(model: Model) -> Iterator[SecondNetwork]:
    network = _part(model.network, "diffusion model")
    with model.placement.use(network) as device:
        yield SecondNetwork(network, device)


def _negative(
    model: Model, request: SampleRequest, given: Sequence[TextCondition], callbacks: Callbacks
) -> Sequence[TextCondition]:
    """Return the encoded negative texts: those given, that of the negative caption, or none without guidance.

    The negative caption has the duration and task of the song, but none of its lyrics and metadata. Guidance thus leads
    towards them, as it does without a negative caption.
    """
    caption = request.sampling.settings.negative_caption
    if not given and not caption.strip():
        return ()
    if not request.sampling.guidance.enabled:
        callbacks.warn("the negative caption is ignored: guidance is off")
        return ()
    song, edit = Song(caption, metadata=Metadata(duration=request.frames / FRAME_RATE)), request.edit
    return given or [_encode_item(model, song, edit, i, callbacks) for i in range(edit.items if edit else 1)]


def _encode(
    model: Model, song: Song, task: Task, tracks: Sequence[str], whole: str, explicit_mask: bool, callbacks: Callbacks
) -> TextCondition:
    text_encoder = _part(model.text_encoder, "text encoder")
    callbacks.check("encode")
    module = text_encoder.module
    with model.placement.use(module) as device, phase("encode", device, next(module.parameters()).dtype):
        condition = text_encoder.encode(
            song, task, model.style, tracks, whole_caption=whole, explicit_mask=explicit_mask
        )
    for warning in condition.warnings:  # logged by the text encoder
        callbacks.warning(warning)
    callbacks.report("encode", 1, 1)
    return condition


def _encode_item(model: Model, song: Song, edit: Edit | None, item: int, callbacks: Callbacks) -> TextCondition:
    if edit is None:
        return _encode(model, song, TEXT2MUSIC, (), "", True, callbacks)
    task = edit.task_of(item)
    condition = _encode(model, song, task, edit.tracks, "", not edit.auto_mask, callbacks)
    return condition if task is edit.task else replace(condition, text_only=condition.caption)


def _require_finite(result: Tensor, stage: str, vae: OobleckVAE) -> None:
    if not is_finite(result):
        raise NonFiniteError.of_vae(stage, vae.dtype)
