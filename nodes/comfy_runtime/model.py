"""The MODEL socket: our network as a `comfy.model_base.BaseModel` in a ModelPatcher."""

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
from ...acestep_core.config import LATENT_CHANNELS
from ...acestep_core.edit.edit import Edit
from ...acestep_core.errors import RequestError
from ...acestep_core.models.cpu.plugins import install_cpu_plugins
from ...acestep_core.models.dit import Prepared
from ...acestep_core.models.layers import materialises_scores
from ...acestep_core.models.model import AceStepModel
from ...acestep_core.sampling.code_latents import CODES_PER_CHUNK
from ...acestep_core.sampling.context import codes_in_context, context_latents, frames_to_run
from ...acestep_core.sampling.preview import draw_preview
from ...acestep_core.sampling.request import check_items
from ...acestep_core.sampling.settings import SamplingSettings, VariantDefaults
from ...acestep_core.song.codes import Codes
from . import notes
from .conditioning import (
    BATCH_KEY,
    LYRICS_KEY,
    MORPH_KEY,
    TIMBRE_KEY,
    condition_rows,
    core_references,
    edit_of,
    text_condition,
)
from .conds import WINDOW_KEY, WINDOWS_KEY, SongCond, check_sigmas, check_windows
from .estimates import MAX_CONDITION_ROWS, sampling_bytes, tokenizing_bytes
from .latents import check_samples
from .patches import OverriddenAttention, compiled_network, foreign_patches, transformer_options
from .placement import ComfyPlacement, storage_devices
from .precision import COMPUTE_DTYPES, encoder_dtype
from .progress import node_callbacks, show_notes
from .versions import is_native, model_class, multigpu_clone, patcher_class, temporal_ratio


def _preview_image(latents: torch.Tensor) -> torch.Tensor:
    """Draw latents [B, 64, T] as an image [1, 3, H, W] in −1…1."""
    image = draw_preview(latents.movedim(1, -1))
    return (image.movedim(-1, 0)[None] + 0.5) / 127.5 - 1


class AceStepLatents(comfy.latent_formats.LatentFormat):
    """Latents [B, 64, T], unscaled: the latent space of ComfyUI's own ACE-Step 1.5.

    ComfyUI reshapes latents for a preview and then maps their channels to colours. Our reshape draws the image, and the
    map is the identity.
    """

    latent_channels = LATENT_CHANNELS
    latent_dimensions = 1
    temporal_downscale_ratio = temporal_ratio()
    latent_rgb_factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    latent_rgb_factors_reshape = staticmethod(_preview_image)


class _ModelConfig(comfy.supported_models_base.BASE):
    latent_format = AceStepLatents
    supported_inference_dtypes = COMPUTE_DTYPES


class AceStep15(model_class()):  # type: ignore[misc]
    """Our network as ComfyUI's samplers run it. Tensors have their original names."""

    def __init__(self, network: AceStepModel, defaults: VariantDefaults, storage: torch.dtype, compute: torch.dtype):
        config = _ModelConfig({})
        config.sampling_settings = {"shift": defaults.shift, "multiplier": 1.0}
        config.set_inference_dtype(storage, None if storage == compute else compute)
        network.decoder.compute_dtype = compute
        for part in (network.encoder, network.tokenizer, network.detokenizer):
            if part is not None:
                part.compute_dtype = encoder_dtype(compute)
        # Skip the constructor of ComfyUI's own ACE-Step class, which builds another network. The option to build none,
        # "disable_unet_model_creation", fails in ComfyUI 0.11.1, whose BaseModel reads the network all the same.
        flow = comfy.model_base.ModelType.FLOW
        comfy.model_base.BaseModel.__init__(self, config, flow, unet_model=lambda **_: network)
        self.defaults, self.attention = defaults, OverriddenAttention()
        network.in_channels = LATENT_CHANNELS  # type: ignore[assignment]  # read by RenormCFG

    def get_dtype(self) -> torch.dtype:
        return self.diffusion_model.decoder.dtype

    @torch.no_grad()  # even if a LoRA is trained: the entry is encoded once for all steps
    def extra_conds(self, **kwargs: Any) -> dict[str, SongCond]:
        """Encode one conditioning entry. ComfyUI calls this once per sampling, with the network on its device."""
        network, device, caption = self.diffusion_model, kwargs["device"], kwargs.get("cross_attn")
        check_samples(kwargs["noise"])
        _check_ksampler(kwargs)
        patcher = self.current_patcher
        check_windows(_context_windows(patcher), kwargs)
        edit = edit_of(kwargs)
        if caption is None or caption.count_nonzero():
            text = text_condition(caption, kwargs.get(LYRICS_KEY), network.config.text_hidden_dim)
            references = core_references(kwargs.get(TIMBRE_KEY))
            (encoded,) = pipeline.encode_conditions(network, [text], device, references)
            patches = [] if patcher is None else foreign_patches(transformer_options(patcher))
            frames = kwargs["noise"].shape[-1]
            show_notes(*notes.patch_notes(patches), *notes.ksampler_notes(edit, frames, kwargs))
        else:  # ConditioningZeroOut
            encoded = network.null_condition_emb.to(device)
        songs, _, frames = kwargs["noise"].shape
        if edit is not None:
            edit.check_model(network.config)
            check_items("edit", edit.items, songs)
        items = 1 if edit is None or edit.items == 1 else songs

        @torch.no_grad()
        def context_of(frames: int) -> torch.Tensor:
            with node_callbacks() as callbacks:
                return context_latents(network, edit, items, frames, device, callbacks)

        return {"song": SongCond(encoded, context_of(frames), context_of)}

    def _apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
        song, options = conds["song"], transformer_options or {}
        if torch.is_grad_enabled():  # TrainLoraNode, which numbers its songs where a sampler has its sigmas
            song = song.of_length(x.shape[-1])
        elif song.is_new:
            check_sigmas(options.get("sample_sigmas", t))
        prepared = song.prepared(self.diffusion_model, len(x), _hook_state(self.current_patcher), x.device)
        if WINDOW_KEY in options:
            retained = getattr(_context_windows(self.current_patcher), "cond_retain_index_list", ())
            prepared = song.in_window(self.diffusion_model, prepared, options[WINDOW_KEY], retained)
        # Wrappers such as EasyCache's expect the options as the last argument.
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        run = WrapperExecutor.new_class_executor(self._velocity, self.diffusion_model, wrappers)
        # Sigma is the time of the flow, even if a ModelSampling node has set another multiplier.
        return self.model_sampling.calculate_denoised(t, run.execute(x, t.float(), prepared, options), x)

    def _velocity(self, x: torch.Tensor, t: torch.Tensor, prepared: Prepared, options: Mapping) -> torch.Tensor:
        """Return the velocity [B, 64, T] of latents x [B, 64, T]."""
        with self.attention.of(self.diffusion_model, options):
            return self.diffusion_model(x.movedim(1, -1), t, prepared).movedim(-1, 1)

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, list[int]]:
        """Return the shapes for `memory_required`, before any condition is encoded."""
        caption, lyrics = kwargs.get("cross_attn"), kwargs.get(LYRICS_KEY)
        if caption is None:
            return {}  # refused by extra_conds
        references = len(kwargs.get(TIMBRE_KEY) or ())
        rows = condition_rows(caption, lyrics, references) if lyrics is not None else caption.shape[1]
        return self.cond_shapes(rows, references, edit_of(kwargs))

    def cond_shapes(self, rows: int, references: int, edit: Edit | None) -> dict[str, list[int]]:
        """Return the shapes of a condition, its timbre references and the audio codes of its edit."""
        config = self.diffusion_model.config
        return {
            "song": [1, rows, config.encoder_hidden_size],
            "timbre": [references, config.timbre_fix_frame, config.timbre_hidden_dim],
            "codes": [1, codes_in_context(edit)],
        }

    def memory_required(self, input_shape: Sequence[int], cond_shapes: Mapping[str, Any] | None = None) -> int:
        """Return the bytes, in addition to the weights, for sampling an input [rows, 64, frames]."""
        conditions, timbres, codes = ((cond_shapes or {}).get(name, ()) for name in ("song", "timbre", "codes"))
        return sampling_bytes(
            self.diffusion_model.config,
            input_shape[0],
            input_shape[-1],
            sum(shape[1] for shape in conditions) or MAX_CONDITION_ROWS,
            self.get_dtype().itemsize,
            references=max((shape[0] for shape in timbres), default=1),  # conditions are encoded one by one
            codes=max((shape[1] for shape in codes), default=0),
            scores=materialises_scores(mm.get_torch_device()),
        )


def _check_ksampler(entry: Mapping[str, Any]) -> None:
    """Raise RequestError for what only Sample Song supports."""
    if entry.get(MORPH_KEY) is not None:
        raise RequestError("conditioning: KSampler does not support Morph. Connect it to Sample Song.")
    if entry.get(BATCH_KEY):
        raise RequestError("conditioning: KSampler would mix the songs of a batch. Connect it to Sample Song.")


def _context_windows(patcher: comfy.model_patcher.ModelPatcher | None) -> object | None:
    return None if patcher is None else patcher.model_options.get(WINDOWS_KEY)


def _hook_state(patcher: comfy.model_patcher.ModelPatcher | None) -> tuple:
    """Return the weight hooks in use, each with its current strength."""
    group = getattr(patcher, "current_hooks", None)
    return () if group is None else tuple((hook, hook.strength) for hook in group.hooks)


def wrap_network(
    network: AceStepModel,
    defaults: VariantDefaults,
    storage: torch.dtype,
    compute: torch.dtype,
    dynamic: bool = True,
) -> comfy.model_patcher.ModelPatcher:
    """Return the network as a MODEL, whose layers are stored in `storage`.

    dynamic: False for weights that ComfyUI moves as a whole, as the nodes for torch.compile, training and hooks need.
    """
    install_cpu_plugins(network, mm.get_torch_device())
    model = AceStep15(network, defaults, storage, compute)
    return patcher_class(dynamic)(model, mm.get_torch_device(), storage_devices().network)


def song_model(model: object) -> AceStep15:
    """Return the model in a MODEL. Raises RequestError for a MODEL of another loader."""
    inner = getattr(model, "model", None)
    if isinstance(inner, AceStep15):
        return inner
    if is_native(inner):
        raise RequestError(
            "model: created by ComfyUI's own loader, for KSampler only. Choose the same file in Load Model of the "
            "ACE-Step 1.5 nodes, and connect that."
        )
    raise RequestError("model: this MODEL is not ACE-Step 1.5. Connect the one of Load Model.")


@dataclass(frozen=True)
class _SongPlacement(ComfyPlacement):
    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        model, options = self.patcher.model, transformer_options(self.patcher)
        with super().use(module) as device, model.attention.of(model.diffusion_model, options):
            yield device


def model_for_sampling(
    model: comfy.model_patcher.ModelPatcher,
    settings: SamplingSettings,
    songs: int,
    frames: int,
    rows: int,
    references: int = 0,
    edit: Edit | None = None,
) -> pipeline.Model:
    """Return a MODEL for the core, with memory for `songs` at once.

    rows: condition rows of all songs. references: timbre references per song. The shift of a ModelSampling node becomes
    the model's default. The GPU that MultiGPU CFG Split adds computes the unconditional half of guidance.

    Raises RequestError for the noise schedule of another model.
    """
    inner = song_model(model)
    schedule = model.get_model_object("model_sampling")
    if not isinstance(schedule, comfy.model_sampling.ModelSamplingDiscreteFlow):
        raise RequestError(
            "model: a node before Sample Song has set the noise schedule of another model. Remove it, or use "
            "ModelSamplingAuraFlow or ModelSamplingSD3."
        )
    defaults = replace(inner.defaults, shift=schedule.shift)
    guided = settings.is_guided(defaults)
    clone = multigpu_clone(model) if guided else None
    passes = 2 if guided and clone is None else 1
    shape = [passes * songs, LATENT_CHANNELS, frames_to_run(frames)]
    conds = {name: [size] for name, size in inner.cond_shapes(rows, references, edit).items()}
    memory = inner.memory_required(shape, conds)

    def placed(patcher: comfy.model_patcher.ModelPatcher) -> pipeline.Model:
        return pipeline.Model(compiled_network(patcher), defaults=defaults, placement=_SongPlacement(patcher, memory))

    return replace(placed(model), second=None if clone is None else placed(clone))


def extract_codes(model: comfy.model_patcher.ModelPatcher, latents: torch.Tensor) -> tuple[Codes, ...]:
    """Return the audio codes of latents [B, T, 64], song by song."""
    inner = song_model(model)
    codes = min(CODES_PER_CHUNK, -(-latents.shape[1] // inner.diffusion_model.config.pool_window_size))
    memory = tokenizing_bytes(inner.diffusion_model.config, codes, inner.get_dtype().itemsize)
    part = pipeline.Model(network=inner.diffusion_model, placement=ComfyPlacement(model, memory))
    with node_callbacks() as callbacks:
        return pipeline.tokenize(part, latents, callbacks)
