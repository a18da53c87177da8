"""From a song to sound, stage by stage: load, encode, sample, decode; `generate` joins them.

Each stage takes a `Model` and brings only the network it needs to its device, through the model's placement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .audio import anti_clip, check_waveform, dropped_channels, is_finite, normalize_peak, resample, to_stereo
from .audio.restore import restore_source
from .callbacks import Callbacks
from .config import FRAME_RATE, HOP, MAX_SECONDS, SAMPLE_RATE
from .edit.edit import Edit
from .edit.morph import Morph
from .edit.source import check_latents
from .edit.tasks import TEXT2MUSIC, Task, find_task
from .errors import NonFiniteError, RequestError
from .load import Model, load_model, recommended
from .models.oobleck import OobleckVAE
from .models.tiling import decode_tiled, encode_tiled
from .recipe import Recipe, unrecorded
from .runtime.phase import phase
from .sampling.conditions import encode_conditions
from .sampling.context import tokenize_latents
from .sampling.run import Request, run
from .sampling.settings import SamplingSettings
from .song.codes import Codes
from .song.seeds import batch_seeds, random_seed
from .song.song import Song
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

MPS_TILE_FRAMES = 32  # Metal's convolutions of older systems fail beyond 65 536 samples


@dataclass(frozen=True)
class Result:
    """A batch of songs. waveform `[batch, 2, samples]`, latents `[batch, frames, 64]`, both float32 on the CPU; one
    song and one seed for each item; settings with every default filled in; audio codes for each item, one for all, or
    none; `unrecorded` as in Recipe."""

    waveform: Tensor
    sample_rate: int
    latents: Tensor
    songs: tuple[Song, ...]
    seeds: tuple[int, ...]
    settings: SamplingSettings
    normalize: bool
    origin: Mapping[str, str]
    codes: tuple[Codes, ...] = ()
    unrecorded: tuple[str, ...] = ()

    def recipe(self, item: int = 0) -> Recipe:
        """What makes this item again, alone."""
        codes = self.codes[item % len(self.codes)] if self.codes else ()
        song, seed = self.songs[item], self.seeds[item]
        return Recipe(song, seed, self.settings, self.normalize, self.origin, codes, self.unrecorded)


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
    """Caption, metadata and lyrics of one song as the text encoder's states, with the instruction of the task.

    For an `Edit` these are its task and tracks, and a song whose duration is the edit's. The rest is for models trained
    on stems alone: what the whole song is, and whether the edit's mask says what to make (`not edit.auto_mask`).
    """
    _check_song(song)
    text_encoder = _part(model.text_encoder, "text encoder")
    callbacks = callbacks or Callbacks()
    callbacks.check("encode")
    module = text_encoder.module
    with model.placement.use(module) as device, phase("encode", device, next(module.parameters()).dtype):
        condition = text_encoder.encode(
            song, find_task(task), model.style, tracks, whole_caption=whole_caption, explicit_mask=explicit_mask
        )
    for warning in condition.warnings:  # they are in the log
        callbacks.warning(warning)
    callbacks.report("encode", 1, 1)
    return condition


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
    callbacks: Callbacks | None = None,
) -> Tensor:
    """Latents `[len(seeds), frames, 64]`, float32 on the CPU.

    conditions: one for all items, or one for each; those of an edit were encoded with its task (`Edit.task_of`).
    seconds: how long the song is; an edit of a source, or a morph, is as long as that.
    settings: what is left open is the variant's own.
    edit, morph: what to make of a source. They are for one song, or for as many as there are seeds.
    timbre: reference latents `[1, frames, 64]` of any length, each heard for its timbre; see `audio.reference`.
    retake: a seed (or one for each item) and how far to turn towards the take that it stands for, 0–1.
    """
    network = _part(model.network, "diffusion model")
    conditions = list(conditions) if isinstance(conditions, Sequence) else [conditions]
    if not isinstance(seeds, Sequence):
        raise RequestError(f"seeds are a list of whole numbers, one for each song, got {seeds!r}")
    if not seeds or len(conditions) not in (1, len(seeds)):
        raise RequestError(f"got {len(conditions)} conditions for {len(seeds)} seeds; give one for all or one for each")
    if retake is not None:
        if not isinstance(retake, Sequence) or len(retake) != 2:
            raise RequestError(f"a retake is its seed and its variance, such as (5, 0.2), got {retake!r}")
        retake = (batch_seeds(retake[0], len(seeds)), retake[1])
    request = Request(
        conditions=conditions,
        frames=_frames(seconds, edit, morph),
        seeds=seeds,
        sampling=(settings or SamplingSettings()).resolve(model.defaults),
        edit=edit,
        morph=morph,
        timbre=timbre,
        retake=retake,
        graphs=model.graphs,
    )
    callbacks = callbacks or Callbacks()
    for warning in (*request.check(network), *request.sampling.warnings):
        callbacks.warn(warning)
    callbacks.check("sample")
    with torch.inference_mode(), model.placement.use(network) as device, phase("sample", device, network.decoder.dtype):
        latents = run(network, request, device, callbacks).cpu()
    return latents.clone()  # outside of inference mode, so that a caller may change it


def tokenize(model: Model, latents: Tensor, callbacks: Callbacks | None = None) -> tuple[Codes, ...]:
    """The audio codes of latents `[batch, frames, 64]`, five a second, song by song."""
    network = _part(model.network, "diffusion model")
    callbacks = callbacks or Callbacks()
    callbacks.check("tokenize")
    with (
        torch.inference_mode(),
        model.placement.use(network) as device,
        phase("tokenize", device, network.encoder.dtype),
    ):
        return tokenize_latents(network, check_latents(latents), device, callbacks)


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
    """Latents `[batch, frames, 64]` to a waveform `[batch, 2, 1920 · frames]`, float32 on the CPU, within −1…1.

    `normalize` brings each item's peak to −1 dBFS; without it only items that clip are scaled, down to 1.
    `edit` is the one that the latents were sampled with. Where it keeps parts of its source and has its waveform, these
    are put back sample for sample, as loud as they are, be it beyond full scale: only what was made is fitted to them
    and kept from clipping, and the result has the source's length.
    `tile_frames` bounds the memory: more is not decoded at once.
    """
    vae = _part(model.vae, "VAE")
    channels = vae.config.decoder_input_channels
    if latents.ndim != 3 or 0 in latents.shape or latents.shape[2] != channels:
        raise RequestError(f"latents must be [batch, frames, {channels}], got a tensor of shape {list(latents.shape)}")
    if not torch.isfinite(latents).all():
        raise NonFiniteError("decode: the latents contain NaN or infinity; the song was not sampled properly")
    if (latents == 0).all(dim=2).all(dim=1).any():
        raise RequestError("these latents are empty, all zero, which is no silence but a drone: sample a song first")
    with model.placement.use(vae) as device, phase("decode", device, vae.dtype):
        tile_frames = min(tile_frames, MPS_TILE_FRAMES) if device.type == "mps" else tile_frames
        waveform = decode_tiled(vae, latents.float(), tile_frames, overlap_frames, callbacks, device)
    _require_finite(waveform, "decode", vae)
    if edit is not None and edit.restores_source:
        waveform = _with_kept_parts(waveform, edit, callbacks or Callbacks())
        if not is_finite(waveform):
            raise NonFiniteError("decode: putting the source back gave NaN or infinity; decode without the edit")
        return waveform
    return (normalize_peak if normalize else anti_clip)(waveform, out=waveform)  # ten minutes are 230 MB: no copy


def _with_kept_parts(waveform: Tensor, edit: Edit, callbacks: Callbacks) -> Tensor:
    """What an edit made, `[batch, 2, samples]`, at the level of its source, and the source itself where it is kept."""
    if math.ceil(waveform.shape[-1] / HOP) != edit.frames or edit.items not in (1, len(waveform)):
        callbacks.warn("these latents are of another length or number than their edit: its source is not put back")
        return anti_clip(waveform)
    sources = edit.waveform
    items = [
        restore_source(item[None], sources[i % len(sources), None], edit.regions_of(i), edit.crossfade_seconds)
        for i, item in enumerate(waveform)
    ]
    return torch.cat(items)


def encode_audio(
    model: Model,
    waveform: Tensor,
    sample_rate: float,
    *,
    tile_frames: int = 750,
    overlap_frames: int = 7,
    callbacks: Callbacks | None = None,
) -> Tensor:
    """Audio `[batch, channels, samples]` of any rate to latents `[batch, frames, 64]`, float32 on the CPU.

    Zeros fill the last frame up; what goes beyond −1…1 is cut off. Raises RequestError for empty, silent or broken
    audio.
    """
    vae = _part(model.vae, "VAE")
    check_waveform(waveform, sample_rate)
    callbacks = callbacks or Callbacks()
    for sentence in dropped_channels(waveform):
        callbacks.warn(sentence)
    waveform = resample(to_stereo(waveform), sample_rate).clamp(-1, 1)  # as the original's, and the VAE's training
    with model.placement.use(vae) as device, phase("encode audio", device, vae.dtype):
        tile_frames = min(tile_frames, MPS_TILE_FRAMES) if device.type == "mps" else tile_frames
        latents = encode_tiled(vae, waveform, tile_frames, overlap_frames, callbacks, device)
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
    """Makes `batch` versions of a song, or of each of several songs of one duration.

    Item i has the seed `seed` + i, or the i-th of a list; without a seed a random one is taken. A song without a
    duration lasts 30 seconds, or as long as the source of the edit or morph. These are for all songs, or have one part
    for each of them; `timbre` and `retake` as for `sample`.
    """
    songs = list(song) if isinstance(song, Sequence) and not isinstance(song, str) else [song]
    for item in songs:
        _check_song(item)
    if not isinstance(batch, int) or batch < 1 or not songs:
        raise RequestError(f"batch must be a whole number of at least 1, got {batch!r} for {len(songs)} songs")
    songs = [_lasting(item, edit, morph) for item in songs]
    durations = {item.metadata.duration or float(DEFAULT_SECONDS) for item in songs}
    if len(durations) > 1:
        given = ", ".join(f"{duration:g}" for duration in sorted(durations))
        raise RequestError(f"the songs of one batch must have one duration, got {given} seconds")
    seeds = batch_seeds(random_seed() if seed is None else seed, batch * len(songs))
    settings = settings or SamplingSettings()
    concrete = settings.resolve(model.defaults).settings
    if edit is not None:
        edit.check_model(_part(model.network, "diffusion model").config)
    conditions = [_encoded(model, item, edit, place, callbacks) for place, item in enumerate(songs)]
    edit = edit and edit.repeated(batch)
    latents = sample(
        model,
        [condition for condition in conditions for _ in range(batch)],
        seconds=None if _source_frames(edit, morph) else durations.pop(),
        seeds=seeds,
        settings=settings,
        edit=edit,
        morph=None if morph is None else morph.repeated(batch),
        timbre=timbre,
        retake=retake,
        callbacks=callbacks,
    )
    waveform = decode(model, latents, normalize=normalize, edit=edit, callbacks=callbacks)
    return Result(
        waveform=waveform,
        sample_rate=SAMPLE_RATE,
        latents=latents,
        songs=tuple(item for item in songs for _ in range(batch)),
        seeds=tuple(seeds),
        settings=concrete,
        normalize=normalize,
        origin=model.origin,
        codes=() if edit is None else edit.codes,
        unrecorded=unrecorded(edit, morph, timbre, retake),
    )


def _check_song(song: object) -> None:
    if not isinstance(song, Song):
        raise RequestError(f'a song to make is a Song, such as Song("warm piano"), got {song!r}')


def _encoded(model: Model, song: Song, edit: Edit | None, item: int, callbacks: Callbacks | None) -> TextCondition:
    """The words of one of the songs that an edit is for."""
    if edit is None:
        return encode(model, song, callbacks=callbacks)
    task = edit.task_of(item)
    condition = encode(model, song, task, edit.tracks, explicit_mask=not edit.auto_mask, callbacks=callbacks)
    return condition if task is edit.task else replace(condition, text_only=condition.caption)


def _lasting(song: Song, edit: Edit | None, morph: Morph | None) -> Song:
    """The song with the duration of what it is made from."""
    frames = _source_frames(edit, morph)
    if frames:
        seconds = frames / FRAME_RATE if edit is None else edit.seconds
    elif edit is not None and song.metadata.duration is None:
        seconds = edit.seconds
    else:
        return song
    return replace(song, metadata=replace(song.metadata, duration=seconds))


def _source_frames(edit: Edit | None, morph: Morph | None) -> int:
    """How many latent frames the source has, which the result cannot but have too; 0 where there is none."""
    if morph is not None:
        return morph.frames
    return 0 if edit is None or edit.source is None else edit.frames


def _frames(seconds: float | None, edit: Edit | None, morph: Morph | None) -> int:
    """The length of the result. Raises RequestError when it cannot be what was asked for."""
    locked = _source_frames(edit, morph)
    if seconds is None and not locked and edit is None:
        raise RequestError("say how long the song is, in seconds: there is no source to tell")
    if seconds is None:
        return locked or edit.frames
    frames = frames_of(seconds)
    if locked and abs(seconds * FRAME_RATE - locked) >= 1:  # a recording's last frame need not be full
        raise RequestError(
            f"the result is as long as its source, {locked / FRAME_RATE:g} seconds, not {seconds:g}: leave the "
            "duration open, or extend the source first"
        )
    return locked or frames


def frames_of(seconds: float) -> int:
    """Latent frames of that duration, at least one. Raises RequestError outside of what the model can do."""
    if not isinstance(seconds, Real) or not math.isfinite(seconds) or not 0 < seconds <= MAX_SECONDS:
        raise RequestError(f"the duration must be above 0 and at most {MAX_SECONDS} seconds, got {seconds!r}")
    return max(1, round(FRAME_RATE * seconds))


def _part(part, name: str):
    if part is None:
        raise RequestError(f"this needs a {name}, and the model was loaded without one")
    return part


def _require_finite(result: Tensor, stage: str, vae: OobleckVAE) -> None:
    if not is_finite(result):
        raise NonFiniteError.of_vae(stage, vae.dtype)
