"""The one place that talks to ComfyUI's model management: placement, the MODEL and VAE sockets, progress, interrupt,
and whatever differs between ComfyUI versions (0.3.75 and later).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.supported_models_base
import comfy.utils
import torch

from ..acestep_core import pipeline
from ..acestep_core.config import FRAME_RATE, HOP, LATENT_CHANNELS, SAMPLE_RATE
from ..acestep_core.errors import Cancelled, RequestError
from ..acestep_core.models.dit import Prepared
from ..acestep_core.models.model import AceStepModel
from ..acestep_core.models.oobleck import OobleckVAE
from ..acestep_core.runtime import Hooks, Progress
from ..acestep_core.sampling.context import frames_to_run, text_to_music_context
from ..acestep_core.sampling.settings import VariantDefaults
from ..acestep_core.text.encoder import TextEncoder
from .conditioning import LYRICS, text_condition

log = logging.getLogger("acestep")

# Qwen's own vocabulary, which ComfyUI carries for its text encoders: single files hold none.
BUNDLED_TOKENIZER = Path(comfy.model_base.__file__).parent / "text_encoders" / "qwen25_tokenizer"

COMPUTE_DTYPES = [torch.bfloat16, torch.float32]  # float16 overflows in the lyric encoder
STORAGE_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "fp8_e4m3fn": torch.float8_e4m3fn}


# -- progress and interrupt -------------------------------------------------------------------------------------------


class _NodeProgress:
    """The bar on the running node: one bar for each stage."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._bar: comfy.utils.ProgressBar | None = None

    def __call__(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self._stage, self._bar = progress.stage, comfy.utils.ProgressBar(progress.total)
        self._bar.update_absolute(progress.step, progress.total)


@contextmanager
def watched() -> Iterator[Hooks]:
    """Hooks for one node's work. A stop by the user leaves this block as ComfyUI's own interrupt."""
    try:
        yield Hooks(progress=_NodeProgress(), cancelled=mm.processing_interrupted)
    except Cancelled:
        mm.throw_exception_if_processing_interrupted()  # clears the flag, too
        raise mm.InterruptProcessingException() from None


def show_note(note: str, node_id: str | None) -> None:
    """One line in the log and on the node."""
    if not note:
        return
    log.warning(note)
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)  # there is none when ComfyUI is used as a library
    if server is not None:
        server.send_progress_text(note, node_id)


# -- dtypes and layers ------------------------------------------------------------------------------------------------


def network_dtypes(asked: str) -> tuple[torch.dtype, torch.dtype]:
    """(storage, compute) dtype of the diffusion model: for "auto" by ComfyUI's policy and flags."""
    if asked != "auto" and asked not in STORAGE_DTYPES:
        raise RequestError(f"unknown dtype {asked!r}: allowed are auto, {', '.join(STORAGE_DTYPES)}")
    device = mm.get_torch_device()
    storage = mm.unet_dtype(device, supported_dtypes=COMPUTE_DTYPES) if asked == "auto" else STORAGE_DTYPES[asked]
    return storage, mm.unet_manual_cast(storage, device, COMPUTE_DTYPES) or storage


def text_encoder_dtype() -> torch.dtype:
    return torch.bfloat16 if mm.should_use_bf16(mm.get_torch_device()) else torch.float32


def vae_dtype() -> torch.dtype:
    return mm.vae_dtype(mm.vae_device(), COMPUTE_DTYPES)


def intermediate_device() -> torch.device:
    """Where results wait for the next node."""
    return mm.intermediate_device()


@dataclass(frozen=True)
class Homes:
    """Where networks lie while they are not in use."""

    network: torch.device
    text_encoder: torch.device
    vae: torch.device


def homes() -> Homes:
    return Homes(mm.unet_offload_device(), mm.text_encoder_offload_device(), mm.vae_offload_device())


class _Castable:
    """What the core asks of a layer whose weight it slices; see `acestep_core.models.layers.weight_and_bias`."""

    def weight_and_bias(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return comfy.ops.cast_bias_weight(self, like)


def comfy_ops(storage: torch.dtype, compute: torch.dtype) -> type:
    """ComfyUI's layers, so that partial loading, fp8 storage and weight patches work, as the core's `ops` namespace."""
    base = comfy.ops.pick_operations(storage, compute, load_device=mm.get_torch_device())

    class Ops:
        class Linear(_Castable, base.Linear):
            # Later versions of ComfyUI make some layers without weights and expect their own loader to bring them.
            def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
                torch.nn.Linear.__init__(self, in_features, out_features, bias, device, dtype)

        class Conv1d(_Castable, base.Conv1d):
            pass

        class ConvTranspose1d(_Castable, base.ConvTranspose1d):
            pass

    return Ops


# -- placement --------------------------------------------------------------------------------------------------------


class _Container(torch.nn.Module):
    """ModelPatcher notes things on the module that it moves, such as its device, which not every network allows."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network


@dataclass(frozen=True)
class ComfyPlacement:
    """The core's `Placement`: ComfyUI brings the network to its device, patched, with `memory` bytes of room beside it.

    `whole`: the network has layers that cannot be cast while in use, so it is loaded completely or not at all.
    """

    patcher: comfy.model_patcher.ModelPatcher
    memory: int = 0
    whole: bool = False

    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        mm.load_models_gpu([self.patcher], memory_required=self.memory, force_full_load=self.whole)
        self.patcher.pre_run()
        try:
            yield self.patcher.load_device
        finally:
            self.patcher.cleanup()


# -- MODEL ------------------------------------------------------------------------------------------------------------


class AceStepLatents(comfy.latent_formats.LatentFormat):
    """[B, 64, T], unscaled: the same latent space as ComfyUI's own ACE-Step 1.5."""

    latent_channels = LATENT_CHANNELS
    latent_dimensions = 1


class _ModelConfig(comfy.supported_models_base.BASE):
    latent_format = AceStepLatents
    supported_inference_dtypes = COMPUTE_DTYPES


class SongCondition:
    """One conditioning entry as ComfyUI's samplers carry it: encoded once, prepared for the network at the first step.

    Has the methods of `comfy.conds.CONDRegular`. Entries never share a batch: each has keys and values of its own.
    """

    def __init__(self, encoded: torch.Tensor, context: torch.Tensor):
        self.encoded = encoded  # [1, S, e]
        self.context = context  # [1, T, 128]
        self._prepared: dict[tuple[int, object], Prepared] = {}

    def process_cond(self, batch_size: int, **_: object) -> SongCondition:
        return self

    def can_concat(self, other: object) -> bool:
        return False

    def concat(self, others: Sequence[object]) -> SongCondition:
        return self

    def size(self) -> list[int]:
        return [1]

    def prepared(self, network: AceStepModel, batch: int, weights: object) -> Prepared:
        """`weights` tells apart the states of a network whose weights a hook changes between steps."""
        key = (batch, weights)
        if key not in self._prepared:
            condition, context = self.encoded.expand(batch, -1, -1), self.context.expand(batch, -1, -1)
            self._prepared[key] = network.decoder.prepare(context, condition)
        return self._prepared[key]


class AceStep15(comfy.model_base.BaseModel):
    """The MODEL of KSampler and its friends: our network, its tensors under their original names."""

    def __init__(self, network: AceStepModel, defaults: VariantDefaults, storage: torch.dtype, compute: torch.dtype):
        config = _ModelConfig({"disable_unet_model_creation": True})
        config.sampling_settings = {"shift": defaults.shift, "multiplier": 1.0}
        config.set_inference_dtype(storage, None if storage == compute else compute)
        super().__init__(config, comfy.model_base.ModelType.FLOW)
        for part in (network.decoder, network.encoder, network.tokenizer, network.detokenizer):
            if part is not None:
                part.compute_dtype = compute
        self.diffusion_model = network
        self.defaults = defaults

    def get_dtype(self) -> torch.dtype:
        return self.diffusion_model.decoder.dtype

    def extra_conds(self, **kwargs: Any) -> dict[str, SongCondition]:
        """Called once for each entry and sampling, the network being on its device: the condition encoder runs here."""
        network, device, caption = self.diffusion_model, kwargs["device"], kwargs["cross_attn"]
        if caption.count_nonzero():
            text = text_condition(caption, kwargs.get(LYRICS), network.config.text_hidden_dim)
            (encoded,) = pipeline.encode_conditions(network, [text], device)
        else:  # ConditioningZeroOut
            encoded = network.null_condition_emb.to(device)
        silence = network.silence(kwargs["noise"].shape[-1]).to(device)
        return {"song": SongCondition(encoded, text_to_music_context(silence, 1))}

    def _apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
        weights = getattr(self.current_patcher, "current_hooks", None)
        prepared = conds["song"].prepared(self.diffusion_model, len(x), weights)
        # Sigma is the flow's own time, whatever multiplier a ModelSampling node has set.
        velocity = self.diffusion_model(x.movedim(1, -1), t.float(), prepared)
        return self.model_sampling.calculate_denoised(t, velocity.movedim(-1, 1), x)

    def memory_required(self, input_shape: Sequence[int], cond_shapes: object = None) -> int:
        """Bytes of a step beside the weights: at its widest an MLP's, hidden states and three inner tensors."""
        rows, frames = input_shape[0], input_shape[-1]
        config = self.diffusion_model.config
        width = 4 * config.hidden_size + 3 * config.intermediate_size
        return rows * -(-frames // config.patch_size) * width * self.get_dtype().itemsize


def wrap_network(
    network: AceStepModel, defaults: VariantDefaults, storage: torch.dtype, compute: torch.dtype
) -> comfy.model_patcher.ModelPatcher:
    """The MODEL socket."""
    if storage != compute:
        store_layers(network, storage)
    model = AceStep15(network, defaults, storage, compute)
    return comfy.model_patcher.ModelPatcher(model, mm.get_torch_device(), mm.unet_offload_device())


def store_layers(network: AceStepModel, storage: torch.dtype) -> None:
    """Keeps the big matrices of the transformer in `storage`; what is small, or sensitive to it, stays as it is."""
    for layer in network.decoder.layers:
        for module in layer.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight = torch.nn.Parameter(module.weight.to(storage), requires_grad=False)


def placed_network(model: comfy.model_patcher.ModelPatcher, rows: int, seconds: float) -> pipeline.Model:
    """What a MODEL holds, for the core's functions: `rows` sequences of that duration at once.

    A shift that a ModelSampling node has set is the MODEL's own from then on.
    """
    inner = getattr(model, "model", None)
    if not isinstance(inner, AceStep15):
        raise RequestError("this MODEL cannot make songs here: connect the one from Load Model")
    memory = inner.memory_required([rows, LATENT_CHANNELS, frames_to_run(pipeline.frames_of(seconds))])
    defaults = replace(inner.defaults, shift=model.get_model_object("model_sampling").shift)
    return pipeline.Model(network=inner.diffusion_model, defaults=defaults, placement=ComfyPlacement(model, memory))


# -- text encoder and VAE ---------------------------------------------------------------------------------------------


class PlacedTextEncoder:
    """The ACESTEP_TEXT_ENCODER socket: a text encoder that comes to the GPU, where there is one, to read a song."""

    def __init__(self, encoder: TextEncoder):
        patcher = comfy.model_patcher.ModelPatcher(
            _Container(encoder.module), mm.get_torch_device(), mm.text_encoder_offload_device()
        )
        self.model = pipeline.Model(text_encoder=encoder, placement=ComfyPlacement(patcher, whole=True))


class SongVAE:
    """The VAE socket, with the methods that ComfyUI's audio nodes call. All work is done in the core's exact tiles."""

    audio_sample_rate = SAMPLE_RATE
    latent_channels = LATENT_CHANNELS
    latent_dim = 1
    output_channels = 2
    upscale_ratio = downscale_ratio = HOP
    TILES = (512, 256, 128, 64, 32)  # frames, tried in turn when memory runs out

    def __init__(self, network: OobleckVAE):
        self.first_stage_model = network
        self.vae_dtype = network.dtype
        self.device, self.output_device = mm.vae_device(), mm.intermediate_device()
        self.patcher = comfy.model_patcher.ModelPatcher(_Container(network), self.device, mm.vae_offload_device())

    def on_device(self) -> AbstractContextManager[torch.device]:
        """Brings the network to its device for as long as the block lasts."""
        return ComfyPlacement(self.patcher, whole=True).use(self.first_stage_model)

    def to_waveform(self, latents: torch.Tensor, hooks: Hooks, normalize: bool, tile: int = TILES[0]) -> torch.Tensor:
        """Latents [B, T, 64] to a waveform [B, 2, N]."""

        def decode(model: pipeline.Model, size: int) -> torch.Tensor:
            return pipeline.decode(model, latents, normalize=normalize, tile_frames=size, hooks=hooks)

        return self._in_tiles(decode, tile)

    def to_latents(self, waveform: torch.Tensor, rate: float, hooks: Hooks, tile: int = TILES[0]) -> torch.Tensor:
        """A waveform [B, channels, N] to latents [B, T, 64]."""

        def encode(model: pipeline.Model, size: int) -> torch.Tensor:
            return pipeline.encode_audio(model, waveform, rate, tile_frames=size, hooks=hooks)

        return self._in_tiles(encode, tile)

    def _in_tiles(self, work: Callable[[pipeline.Model, int], torch.Tensor], tile: int) -> torch.Tensor:
        for size in [tile, *(smaller for smaller in self.TILES if smaller < tile)]:
            placement = ComfyPlacement(self.patcher, self._tile_memory(size), whole=True)
            try:
                return work(pipeline.Model(vae=self.first_stage_model, placement=placement), size)
            except mm.OOM_EXCEPTION:
                log.warning("VAE: out of memory with tiles of %.1f s, trying smaller ones", size / FRAME_RATE)
            mm.soft_empty_cache()
        raise RequestError("not even the smallest VAE tile fits into memory: free some, or run ComfyUI with --cpu-vae")

    def _tile_memory(self, frames: int) -> int:
        """The widest moment is in the last block: some five tensors over all samples."""
        config = self.first_stage_model.config
        return 5 * frames * config.hop * config.decoder_channels * self.vae_dtype.itemsize

    # What ComfyUI's nodes call, with latents [B, 64, T] and audio [B, N, 2].

    def decode(self, samples: torch.Tensor, vae_options: object = None) -> torch.Tensor:
        return self.decode_tiled(samples)

    def encode(self, pixel_samples: torch.Tensor) -> torch.Tensor:
        return self.encode_tiled(pixel_samples)

    def decode_tiled(self, samples, tile_x=None, tile_y=None, overlap=None, tile_t=None, overlap_t=None):
        with watched() as hooks:
            waveform = self.to_waveform(samples.movedim(1, -1), hooks, False, tile_y or tile_x or self.TILES[0])
        return waveform.movedim(1, -1).to(self.output_device)

    def encode_tiled(self, pixel_samples, tile_x=None, tile_y=None, overlap=None, tile_t=None, overlap_t=None):
        with watched() as hooks:
            latents = self.to_latents(pixel_samples.movedim(-1, 1), SAMPLE_RATE, hooks)
        return latents.movedim(-1, 1).to(self.output_device)

    def get_sd(self) -> dict[str, torch.Tensor]:
        return self.first_stage_model.state_dict()

    def throw_exception_if_invalid(self) -> None:
        return None

    def spacial_compression_decode(self) -> int:
        return HOP

    def spacial_compression_encode(self) -> int:
        return HOP

    def temporal_compression_decode(self) -> None:
        return None


def song_vae(vae: object) -> SongVAE:
    if not isinstance(vae, SongVAE):
        raise RequestError("this VAE cannot be used here: connect the one from Load Model")
    return vae
