"""The MODEL socket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.model_sampling
import comfy.supported_models_base
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers

from ...acestep_core import pipeline
from ...acestep_core.config import FRAMES_PER_CODE, LATENT_CHANNELS
from ...acestep_core.edit.edit import Edit
from ...acestep_core.errors import RequestError
from ...acestep_core.models.dit import Prepared
from ...acestep_core.models.layers import holds_scores
from ...acestep_core.models.model import AceStepModel
from ...acestep_core.sampling.context import CODES_PER_CHUNK, codes_in_context, context_latents, frames_to_run
from ...acestep_core.sampling.preview import draw_preview
from ...acestep_core.sampling.settings import SamplingSettings, VariantDefaults
from ...acestep_core.song.codes import Codes
from ..conditioning import (
    BATCH,
    LYRICS,
    MORPH,
    TIMBRE,
    condition_rows,
    edit_of,
    references,
    text_condition,
    without_effect,
)
from . import patches
from .condition import WINDOW, WINDOWS, SongCondition, check_sigmas, check_windows
from .estimates import MAX_CONDITION_ROWS, sampling_bytes, tokenizing_bytes
from .placement import ComfyPlacement
from .precision import COMPUTE_DTYPES, encoder_dtype
from .progress import show_note, watched
from .versions import is_native, model_class, temporal_ratio


def _drawn(latents: torch.Tensor) -> torch.Tensor:
    """What ComfyUI's latent previews are made from: latents [B, 64, T] as an image [1, 3, H, W] in −1…1."""
    image = draw_preview(latents.movedim(1, -1))
    return (image.movedim(-1, 0)[None] + 0.5) / 127.5 - 1


class AceStepLatents(comfy.latent_formats.LatentFormat):
    """[B, 64, T], unscaled: the same latent space as ComfyUI's own ACE-Step 1.5.

    Previews are a linear map from latent channels to red, green and blue, after a function that reshapes the latents:
    here that function draws the picture, and its channels are the colours already.
    """

    latent_channels = LATENT_CHANNELS
    latent_dimensions = 1
    temporal_downscale_ratio = temporal_ratio()
    latent_rgb_factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    latent_rgb_factors_reshape = staticmethod(_drawn)


class _ModelConfig(comfy.supported_models_base.BASE):
    latent_format = AceStepLatents
    supported_inference_dtypes = COMPUTE_DTYPES


class AceStep15(model_class()):
    """The MODEL of KSampler and its friends: our network, its tensors under their original names."""

    def __init__(self, network: AceStepModel, defaults: VariantDefaults, storage: torch.dtype, compute: torch.dtype):
        config = _ModelConfig({})
        config.sampling_settings = {"shift": defaults.shift, "multiplier": 1.0}
        config.set_inference_dtype(storage, None if storage == compute else compute)
        network.decoder.compute_dtype = compute
        for part in (network.encoder, network.tokenizer, network.detokenizer):
            if part is not None:
                part.compute_dtype = encoder_dtype(compute)
        # Not through ComfyUI's own ACE-Step class, which would make another network. BaseModel can be told to make none
        # ("disable_unet_model_creation"), but that of ComfyUI 0.11.1 then fails: it looks at the network all the same.
        flow = comfy.model_base.ModelType.FLOW
        comfy.model_base.BaseModel.__init__(self, config, flow, unet_model=lambda **_: network)
        self.defaults = defaults
        network.in_channels = LATENT_CHANNELS  # RenormCFG asks for it: the channels of what is guided

    def get_dtype(self) -> torch.dtype:
        return self.diffusion_model.decoder.dtype

    def extra_conds(self, **kwargs: Any) -> dict[str, SongCondition]:
        """Called once for each entry and sampling, the network being on its device: the condition encoder runs here."""
        network, device, caption = self.diffusion_model, kwargs["device"], kwargs.get("cross_attn")
        _check_latent(kwargs["noise"])
        _check_followed(kwargs)
        patcher = self.current_patcher
        check_windows(_windows(patcher), kwargs)
        options = {} if patcher is None else patches.options_of(patcher)
        patches.check_blocks(options)
        idle = patches.without_place(options)
        edit = edit_of(kwargs)
        if caption is None or caption.count_nonzero():
            text = text_condition(caption, kwargs.get(LYRICS), network.config.text_hidden_dim)
            (encoded,) = pipeline.encode_conditions(network, [text], device, references(kwargs.get(TIMBRE)))
            show_note(
                *patches.change_nothing(idle),
                *_not_followed(edit, kwargs["noise"].shape[-1]),
                *without_effect(kwargs),
            )
        else:  # ConditioningZeroOut
            encoded = network.null_condition_emb.to(device)
        if edit is not None:
            edit.check_model(network.config)
        songs, _, frames = kwargs["noise"].shape
        with watched() as callbacks:
            seen = context_latents(
                network, edit, 1 if edit is None or edit.items == 1 else songs, frames, device, callbacks
            )
        return {"song": SongCondition(encoded, seen, idle)}

    def _apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
        song, options = conds["song"], transformer_options or {}
        if not song.begun:
            check_sigmas(options.get("sample_sigmas", t))
        _say_what_changes_nothing(song, options)
        prepared = song.prepared(self.diffusion_model, len(x), _hooked(self.current_patcher))
        if WINDOW in options:
            kept = getattr(_windows(self.current_patcher), "cond_retain_index_list", ())
            prepared = song.in_window(self.diffusion_model, prepared, options[WINDOW], kept)
        # As every network of ComfyUI's calls what is around it, options last: EasyCache and its kind.
        around = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        run = WrapperExecutor.new_class_executor(self._velocity, self.diffusion_model, around)
        # Sigma is the flow's own time, whatever multiplier a ModelSampling node has set.
        return self.model_sampling.calculate_denoised(t, run.execute(x, t.float(), prepared, options), x)

    def _velocity(self, x: torch.Tensor, t: torch.Tensor, prepared: Prepared, options: Mapping) -> torch.Tensor:
        """[B, 64, T], of latents x [B, 64, T]."""
        with patches.attention(self.diffusion_model, options):
            return self.diffusion_model(x.movedim(1, -1), t, prepared).movedim(-1, 1)

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, list[int]]:
        """What `SongCondition.size` will say, before there is one, and what it takes to make it."""
        caption, lyrics = kwargs.get("cross_attn"), kwargs.get(LYRICS)
        if caption is None:
            return {}  # refused by extra_conds
        voices = len(kwargs.get(TIMBRE) or ())
        rows = condition_rows(caption, lyrics, voices) if lyrics is not None else caption.shape[1]
        return self.shapes(rows, voices, edit_of(kwargs))

    def shapes(self, rows: int, voices: int, edit: Edit | None) -> dict[str, list[int]]:
        """Of a condition, of the references that are heard for it, and of the audio codes that its edit goes through;
        for `memory_required`."""
        config = self.diffusion_model.config
        return {
            "song": [1, rows, config.encoder_hidden_size],
            "timbre": [voices, config.timbre_fix_frame, config.timbre_hidden_dim],
            "codes": [1, codes_in_context(edit)],
        }

    def memory_required(self, input_shape: Sequence[int], cond_shapes: Mapping[str, Any] | None = None) -> int:
        """Bytes that sampling an input [rows, 64, frames] needs beside the weights."""
        conditions, voices, codes = ((cond_shapes or {}).get(name, ()) for name in ("song", "timbre", "codes"))
        return sampling_bytes(
            self.diffusion_model.config,
            input_shape[0],
            input_shape[-1],
            sum(shape[1] for shape in conditions) or MAX_CONDITION_ROWS,
            self.get_dtype().itemsize,
            # Every condition is made by itself.
            references=max((shape[0] for shape in voices), default=1),
            codes=max((shape[1] for shape in codes), default=0),
            scores=holds_scores(mm.get_torch_device()),
        )


def _check_followed(entry: Mapping[str, Any]) -> None:
    """Refuses what only Sample Song can do, rather than make another song than asked for."""
    if entry.get(MORPH) is not None:
        raise RequestError("KSampler cannot morph: connect this conditioning to Sample Song")
    if entry.get(BATCH):
        raise RequestError("KSampler would mix the songs of a batch: connect this conditioning to Sample Song")


def _not_followed(edit: Edit | None, frames: int) -> list[str]:
    """What KSampler cannot do of an edit, as sentences."""
    unheard = edit.unsupported_by_ksampler() if edit is not None else []
    tolerance = FRAMES_PER_CODE - 1 if edit is not None and edit.source is None else 0  # codes end where they can
    if edit is not None and abs(frames - edit.frames) > tolerance:
        unheard.append("the length of the source")
    return [f"KSampler does not follow {', '.join(unheard)}; Sample Song does"] if unheard else []


def _say_what_changes_nothing(song: SongCondition, options: Mapping[str, Any]) -> None:
    """Of what guidance has put into a step's options, once for each sampling."""
    names = patches.without_place(options) - song.said
    song.said |= names
    show_note(*patches.change_nothing(names))


def _windows(patcher: comfy.model_patcher.ModelPatcher | None) -> object | None:
    """What cuts the time of a song into windows, if anything does."""
    return None if patcher is None else patcher.model_options.get(WINDOWS)


def _hooked(patcher: comfy.model_patcher.ModelPatcher | None) -> tuple:
    """The hooks that the weights are patched with now, each with the strength that its keyframes give it by now."""
    group = getattr(patcher, "current_hooks", None)
    return () if group is None else tuple((hook, hook.strength) for hook in group.hooks)


def _check_latent(latent: torch.Tensor) -> None:
    if latent.ndim != 3 or latent.shape[1] != LATENT_CHANNELS:
        raise RequestError(
            f"this latent is not a song: it has the shape {list(latent.shape)}, a song has [batch, {LATENT_CHANNELS}, "
            "frames]; connect the one from Empty Song"
        )


def wrap_network(
    network: AceStepModel, defaults: VariantDefaults, storage: torch.dtype, compute: torch.dtype
) -> comfy.model_patcher.ModelPatcher:
    """The MODEL socket."""
    if storage != compute:
        store_layers(network.decoder.layers, storage)
    model = AceStep15(network, defaults, storage, compute)
    return comfy.model_patcher.ModelPatcher(model, mm.get_torch_device(), mm.unet_offload_device())


def store_layers(layers: torch.nn.ModuleList, storage: torch.dtype) -> None:
    """Keeps a transformer's big matrices in `storage`; what is small, or sensitive to it, stays as it is."""
    with torch.inference_mode(False):  # nodes run in it, and it would mark the weights for ever
        for module in layers.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight = torch.nn.Parameter(module.weight.to(storage), requires_grad=False)


def song_model(model: object) -> AceStep15:
    """What is in a MODEL. Raises RequestError for those of other models."""
    inner = getattr(model, "model", None)
    if not isinstance(inner, AceStep15):
        if is_native(inner):
            raise RequestError(
                "this MODEL comes from ComfyUI's own loader, which is for KSampler: choose the same file in Load Model "
                "of the ACE-Step 1.5 nodes, and connect that"
            )
        raise RequestError("this MODEL cannot make songs here: connect the one from Load Model")
    return inner


@dataclass(frozen=True)
class _SongPlacement(ComfyPlacement):
    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        network, options = self.patcher.model.diffusion_model, patches.options_of(self.patcher)
        with super().use(module) as device, patches.attention(network, options):
            yield device


def placed_network(
    model: comfy.model_patcher.ModelPatcher,
    settings: SamplingSettings,
    songs: int,
    frames: int,
    rows: int,
    voices: int = 0,
    edit: Edit | None = None,
) -> pipeline.Model:
    """What a MODEL holds, for the core's functions, with room for that many songs at once, whose conditions have that
    many rows together, and each of them that many timbre references.

    A shift that a ModelSampling node has set is the MODEL's own from then on.
    """
    inner = song_model(model)
    schedule = model.get_model_object("model_sampling")
    if not isinstance(schedule, comfy.model_sampling.ModelSamplingDiscreteFlow):
        raise RequestError(
            "a node before this one has given the MODEL a noise schedule that is not ACE-Step's: remove it, or use "
            "ModelSamplingAuraFlow or ModelSamplingSD3"
        )
    defaults = replace(inner.defaults, shift=schedule.shift)
    halves = 2 if settings.resolve(defaults).guidance.enabled else 1
    shape = [halves * songs, LATENT_CHANNELS, frames_to_run(frames)]
    memory = inner.memory_required(shape, {name: [size] for name, size in inner.shapes(rows, voices, edit).items()})
    return pipeline.Model(network=patches.compiled(model), defaults=defaults, placement=_SongPlacement(model, memory))


def tokenized(model: comfy.model_patcher.ModelPatcher, latents: torch.Tensor) -> tuple[Codes, ...]:
    """The audio codes of latents [B, T, 64], song by song."""
    inner = song_model(model)
    codes = min(CODES_PER_CHUNK, -(-latents.shape[1] // inner.diffusion_model.config.pool_window_size))
    memory = tokenizing_bytes(inner.diffusion_model.config, codes, inner.get_dtype().itemsize)
    part = pipeline.Model(network=inner.diffusion_model, placement=ComfyPlacement(model, memory))
    with watched() as callbacks:
        return pipeline.tokenize(part, latents, callbacks)
