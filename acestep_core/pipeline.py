"""From a song to sound, stage by stage: load, encode, sample, decode; `generate` joins them.

Each stage takes a `Model` and brings only the network it needs to its device, through the model's placement.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .audio import anti_clip, check_waveform, normalize_peak, resample, to_stereo
from .config import FRAME_RATE, MAX_SECONDS, SAMPLE_RATE
from .errors import CheckpointError, NonFiniteError, RequestError
from .models.model import AceStepModel
from .models.oobleck import OobleckVAE
from .models.ops import CastOps
from .models.tiling import decode_tiled, encode_tiled
from .recipe import Recipe
from .runtime import Hooks, Offload, Placement, Precision, Resident, default_placement, phase, pick_device
from .sampling.context import frames_to_run, text_to_music_context
from .sampling.loop import denoise
from .sampling.noise import batch_seeds, draw_noise
from .sampling.settings import TURBO, SamplingSettings, VariantDefaults
from .sampling.velocity import network_velocity
from .song import Song
from .text.prompts import DEFAULT_SECONDS

if TYPE_CHECKING:
    from .checkpoints.catalog import Variant
    from .text.encoder import TextCondition, TextEncoder

log = logging.getLogger("acestep")

MPS_TILE_FRAMES = 32  # Metal's convolutions of older systems fail beyond 65 536 samples


@dataclass
class Model:
    """The networks that make a song, and who places them. A stage needs only its own part; the others may be None.

    network: needs its `silence_latent` (see checkpoints.loading.ensure_silence).
    defaults: the sampling that the variant's authors recommend.
    origin: what it was loaded from, for `Recipe`.
    note: a sentence the checkpoint wants its user to read, or empty.
    """

    network: AceStepModel | None = None
    text_encoder: TextEncoder | None = None
    vae: OobleckVAE | None = None
    defaults: VariantDefaults = TURBO
    placement: Placement = field(default_factory=lambda: Resident(torch.device("cpu")))
    origin: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Result:
    """A batch of songs. waveform `[batch, 2, samples]`, latents `[batch, frames, 64]`, both float32 on the CPU; one
    song and one seed for each item; settings with every default filled in."""

    waveform: Tensor
    sample_rate: int
    latents: Tensor
    songs: tuple[Song, ...]
    seeds: tuple[int, ...]
    settings: SamplingSettings
    normalize: bool
    origin: Mapping[str, str]

    def recipe(self, item: int = 0) -> Recipe:
        """What makes this item again, alone."""
        return Recipe(self.songs[item], self.seeds[item], self.settings, self.normalize, self.origin)


def load_model(
    name_or_path: str | Path = "nano",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | Precision = "auto",
    vae: str | Path | None = None,
    text_encoder: str | Path | None = None,
    variant: str | None = None,
    offload: bool = False,
    models_dir: str | None = None,
    hooks: Hooks | None = None,
) -> Model:
    """The whole model of a name from the catalog ("nano", "turbo", …), or at a path in any of its layouts.

    dtype: for all networks, or a `Precision` for each. vae, text_encoder: names or paths, instead of the model's own.
    variant: what the model is when its files do not say. offload: networks visit the device one at a time.
    models_dir: where to look, instead of the default folders. Raises RequestError or CheckpointError.
    """
    from .checkpoints.catalog import Kind, default_roots
    from .checkpoints.dimensions import read_config
    from .checkpoints.find import find_checkpoint
    from .checkpoints.loading import ensure_silence, load_network, load_text_encoder, load_vae

    device = pick_device(device)
    precision = dtype if isinstance(dtype, Precision) else Precision.pick(device, dit=dtype)
    placement = default_placement(device, offload)
    home = torch.device("cpu") if isinstance(placement, Offload) else device
    roots = default_roots(models_dir)
    parts = find_checkpoint(name_or_path, roots)
    vae_path = _part_path(vae, roots) if vae else parts.path_of(Kind.VAE)
    text_path = _part_path(text_encoder, roots) if text_encoder else parts.path_of(Kind.TEXT_ENCODER)
    # A folder brings its own tokenizer; a single file has none and uses the one found for the model.
    words = None if text_path.is_dir() else parts.path_of(Kind.TOKENIZER)

    network, report = load_network(
        parts.network,
        device=home,
        dtype=precision.dit,
        variant=variant,
        encoder_ops=CastOps if precision.condition != precision.dit else None,
        hooks=hooks,
    )
    text_encoder_model, _ = load_text_encoder(
        text_path, device=home, dtype=precision.text_encoder, tokenizer=words, hooks=hooks
    )
    _check_widths(network, text_encoder_model)
    vae_model, _ = load_vae(vae_path, device=home, dtype=precision.vae, hooks=hooks)
    ensure_silence(network, vae_model)
    given = {"model": name_or_path, "vae": vae, "text_encoder": text_encoder, "variant": variant}
    return Model(
        network=network,
        text_encoder=text_encoder_model,
        vae=vae_model,
        defaults=recommended(report.variant),
        placement=placement,
        origin={name: str(value) for name, value in given.items() if value is not None},
        note=read_config(parts.network).get("acestep_note", ""),
    )


def _check_widths(network: AceStepModel, text_encoder: TextEncoder) -> None:
    width = text_encoder.module.config.hidden_size
    if width != network.config.text_hidden_dim:
        raise CheckpointError(
            f"this text encoder gives {width} values a token, the diffusion model reads "
            f"{network.config.text_hidden_dim}: they do not belong together"
        )


def _part_path(name_or_path: str | Path, roots: Sequence[Path]) -> Path:
    """A VAE or text encoder by its name in the catalog, or its path."""
    from .checkpoints.catalog import RELEASES, places

    item = RELEASES.get(str(name_or_path))
    candidates = [Path(name_or_path).expanduser()] if item is None else places(item, roots)
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        looked = ", ".join(str(path) for path in candidates)
        raise CheckpointError(f"no {name_or_path}; looked for {looked}; `acestep models` lists what can be fetched")
    return found


def recommended(variant: Variant) -> VariantDefaults:
    """How the authors of a variant sample it."""
    return VariantDefaults(variant.steps, variant.shift, variant.guidance, variant.is_turbo)


def encode(model: Model, song: Song, hooks: Hooks | None = None) -> TextCondition:
    """Caption, metadata and lyrics of one song as the text encoder's states."""
    text_encoder = _part(model.text_encoder, "text encoder")
    hooks = hooks or Hooks()
    hooks.check("encode")
    module = text_encoder.module
    with model.placement.use(module) as device, phase("encode", device, next(module.parameters()).dtype):
        condition = text_encoder.encode(song)
    hooks.report("encode", 1, 1)
    return condition


def sample(
    model: Model,
    conditions: TextCondition | Sequence[TextCondition],
    *,
    seconds: float,
    seeds: Sequence[int],
    settings: SamplingSettings | None = None,
    hooks: Hooks | None = None,
) -> Tensor:
    """Latents `[len(seeds), round(25 · seconds), 64]`, float32 on the CPU.

    `conditions`: one for all items, or one for each. Settings left open are the variant's own.
    """
    network = _part(model.network, "diffusion model")
    hooks = hooks or Hooks()
    conditions = list(conditions) if isinstance(conditions, Sequence) else [conditions]
    frames = frames_of(seconds)
    if not seeds or len(conditions) not in (1, len(seeds)):
        raise RequestError(f"got {len(conditions)} conditions for {len(seeds)} seeds; give one for all or one for each")
    resolved = (settings or SamplingSettings()).resolve(model.defaults)
    for warning in resolved.warnings:
        log.warning(warning)
    hooks.check("sample")
    with torch.inference_mode(), model.placement.use(network) as device, phase("sample", device, network.decoder.dtype):
        silence = network.silence(frames_to_run(frames)).to(device, torch.float32)
        velocity = network_velocity(
            network,
            encode_conditions(network, conditions, device),
            text_to_music_context(silence, len(seeds)),
            guided=resolved.guidance.enabled,
        )
        latents = denoise(
            velocity,
            draw_noise(seeds, *silence.shape[1:]).to(device),
            resolved.schedule,
            solver=resolved.solver,
            guidance=resolved.guidance,
            seeds=seeds,
            hooks=hooks,
        )[:, :frames].cpu()
    return latents.clone()  # outside of inference mode, so that a caller may change it


def encode_conditions(network: AceStepModel, conditions: Sequence[TextCondition], device: torch.device) -> list[Tensor]:
    """Text states as the rows `[1, S, e]` that the transformer attends to; `network` is ready to run on `device`.

    A condition is encoded once however often it occurs. There is no reference audio: silence stands in for it.
    """
    timbre = network.silence(network.config.timbre_fix_frame)[None].to(device)
    known: dict[int, Tensor] = {}
    for condition in conditions:
        if id(condition) not in known:
            known[id(condition)] = network.encoder(condition.caption.to(device), condition.lyrics.to(device), timbre)
    return [known[id(condition)] for condition in conditions]


def decode(
    model: Model,
    latents: Tensor,
    *,
    normalize: bool = True,
    tile_frames: int = 512,
    overlap_frames: int = 9,
    hooks: Hooks | None = None,
) -> Tensor:
    """Latents `[batch, frames, 64]` to a waveform `[batch, 2, 1920 · frames]`, float32 on the CPU, within −1…1.

    `normalize` brings each item's peak to −1 dBFS; without it only items that clip are scaled, down to 1.
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
        waveform = decode_tiled(vae, latents.float(), tile_frames, overlap_frames, hooks, device)
    _require_finite(waveform, "decode", vae)
    return normalize_peak(waveform) if normalize else anti_clip(waveform)


def encode_audio(
    model: Model,
    waveform: Tensor,
    sample_rate: float,
    *,
    tile_frames: int = 750,
    overlap_frames: int = 7,
    hooks: Hooks | None = None,
) -> Tensor:
    """Audio `[batch, channels, samples]` of any rate to latents `[batch, frames, 64]`, float32 on the CPU.

    Zeros fill the last frame up. Raises RequestError for empty, silent or broken audio.
    """
    vae = _part(model.vae, "VAE")
    check_waveform(waveform, sample_rate)
    waveform = resample(to_stereo(waveform), sample_rate)
    with model.placement.use(vae) as device, phase("encode audio", device, vae.dtype):
        tile_frames = min(tile_frames, MPS_TILE_FRAMES) if device.type == "mps" else tile_frames
        latents = encode_tiled(vae, waveform, tile_frames, overlap_frames, hooks, device)
    _require_finite(latents, "encode audio", vae)
    return latents


def generate(
    model: Model,
    song: Song | Sequence[Song],
    *,
    batch: int = 1,
    seed: int | None = None,
    settings: SamplingSettings | None = None,
    normalize: bool = True,
    hooks: Hooks | None = None,
) -> Result:
    """Makes `batch` versions of a song, or of each of several songs of one duration.

    Item i has the seed `seed` + i; without a seed a random one is taken. A song without a duration lasts 30 seconds.
    """
    songs = list(song) if isinstance(song, Sequence) else [song]
    durations = {item.metadata.duration or float(DEFAULT_SECONDS) for item in songs}
    if not isinstance(batch, int) or batch < 1 or not songs:
        raise RequestError(f"batch must be a whole number of at least 1, got {batch!r} for {len(songs)} songs")
    if len(durations) > 1:
        given = ", ".join(f"{duration:g}" for duration in sorted(durations))
        raise RequestError(f"the songs of one batch must have one duration, got {given} seconds")
    seeds = batch_seeds(random_seed() if seed is None else seed, batch * len(songs))
    settings = settings or SamplingSettings()
    concrete = settings.resolve(model.defaults).settings
    conditions = [encode(model, item, hooks) for item in songs]
    latents = sample(
        model,
        [condition for condition in conditions for _ in range(batch)],
        seconds=durations.pop(),
        seeds=seeds,
        settings=settings,
        hooks=hooks,
    )
    waveform = decode(model, latents, normalize=normalize, hooks=hooks)
    return Result(
        waveform=waveform,
        sample_rate=SAMPLE_RATE,
        latents=latents,
        songs=tuple(item for item in songs for _ in range(batch)),
        seeds=tuple(seeds),
        settings=concrete,
        normalize=normalize,
        origin=model.origin,
    )


def random_seed() -> int:
    """A seed that nobody chose, short enough to write down."""
    return secrets.randbelow(2**32)


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
    if torch.isfinite(result).all():
        return
    dtype = str(vae.dtype).removeprefix("torch.")
    raise NonFiniteError(f"{stage}: the VAE produced NaN or infinity in {dtype}; load it in float32 (vae dtype)")
