"""The VAE socket."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import comfy.model_management as mm
import comfy.model_patcher
import torch

from ...acestep_core import pipeline
from ...acestep_core.callbacks import Callbacks
from ...acestep_core.checkpoints.silence import ENCODED_FRAMES, ensure_silence
from ...acestep_core.checkpoints.stable_audio_keys import stable_audio_state
from ...acestep_core.config import FRAME_RATE, HOP, LATENT_CHANNELS, SAMPLE_RATE
from ...acestep_core.edit.edit import Edit
from ...acestep_core.errors import RequestError
from ...acestep_core.models.cpu.plugins import install_cpu_plugins
from ...acestep_core.models.model import AceStepModel
from ...acestep_core.models.oobleck import OobleckVAE
from .estimates import tile_bytes, wide_vae_bytes
from .native_vae import NativeVAE, is_song_vae
from .placement import ComfyPlacement, Container, storage_devices
from .progress import node_callbacks, show_notes
from .versions import is_out_of_memory

T = TypeVar("T")


class SongVAE:
    """The VAE socket, with the methods that ComfyUI's audio nodes call. All work runs in the core's exact tiles."""

    audio_sample_rate = SAMPLE_RATE
    latent_channels = LATENT_CHANNELS
    latent_dim = 1
    output_channels = 2
    upscale_ratio = downscale_ratio = HOP
    TILES = (512, 256, 128, 64, 32)  # frames, tried in turn if memory runs out

    def __init__(self, network: OobleckVAE):
        self.first_stage_model: torch.nn.Module = network
        self.vae_dtype = network.dtype
        self.device, self.output_device = mm.vae_device(), mm.intermediate_device()
        install_cpu_plugins(network, self.device)
        # Not the dynamic patcher: after an overflow of float16 the VAE runs with other weights, in float32.
        self.patcher = comfy.model_patcher.ModelPatcher(Container(network), self.device, storage_devices().vae)

    @property
    def _network(self) -> OobleckVAE:
        """The patcher's network. Select VAE Device replaces the patcher, and `first_stage_model` by its Container."""
        return self.patcher.model.network

    def encode_silence(self, network: AceStepModel, callbacks: Callbacks) -> None:
        """Set the silence latent of a network whose checkpoint has none."""

        def encode(model: pipeline.Model, _: int) -> None:
            with model.placement.use(self._network):
                ensure_silence(network, self._network, callbacks)

        self._in_tiles(encode, self.TILES[-1], ENCODED_FRAMES)

    def to_waveform(
        self,
        latents: torch.Tensor,
        callbacks: Callbacks,
        normalize: bool,
        tile: int = TILES[0],
        edit: Edit | None = None,
    ) -> torch.Tensor:
        """Decode latents [B, T, 64], sampled with `edit`, to a waveform [B, 2, N]."""

        def decode(model: pipeline.Model, size: int) -> torch.Tensor:
            return pipeline.decode(
                model, latents, normalize=normalize, edit=edit, tile_frames=size, callbacks=callbacks
            )

        return self._in_tiles(decode, tile, latents.shape[1])

    def to_latents(
        self, waveform: torch.Tensor, rate: float, callbacks: Callbacks, tile: int = TILES[0]
    ) -> torch.Tensor:
        """Encode a waveform [B, channels, N] to latents [B, T, 64]."""

        def encode(model: pipeline.Model, size: int) -> torch.Tensor:
            return pipeline.encode_audio(model, waveform, rate, tile_frames=size, callbacks=callbacks)

        # encode_audio refuses a rate of 0, which must not fail here.
        return self._in_tiles(encode, tile, math.ceil(waveform.shape[-1] * FRAME_RATE / max(rate, 1)))

    def _in_tiles(self, work: Callable[[pipeline.Model, int], T], tile: int, frames: int) -> T:
        """Run `work` in tiles of that size, then in smaller ones while memory runs out. Raises RequestError."""
        sizes = [tile, *(smaller for smaller in self.TILES if smaller < tile)]
        for size, smaller in zip(sizes, [*sizes[1:], None], strict=True):
            memory = tile_bytes(self._network.config, min(size, frames), self.vae_dtype.itemsize)
            memory += wide_vae_bytes(self._network)
            placement = ComfyPlacement(self.patcher, memory, whole=True)
            try:
                return work(pipeline.Model(vae=self._network, placement=placement), size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the except block, so that the traceback no longer holds the tensors of the failed try.
            mm.soft_empty_cache()
            if smaller is not None:
                show_notes(
                    f"VAE: out of memory in tiles of {size / FRAME_RATE:g} s, continuing in tiles of "
                    f"{smaller / FRAME_RATE:g} s. This is slower; the result is the same."
                )
        raise RequestError(
            f"VAE: out of memory, even in tiles of {sizes[-1] / FRAME_RATE:g} s. Close other programs that use the "
            "GPU, or start ComfyUI with --cpu-vae."
        )

    # ComfyUI's interface: latents [B, 64, T] and audio [B, N, 2].

    def decode(self, samples: torch.Tensor, vae_options: object = None) -> torch.Tensor:
        return self.decode_tiled(samples)

    def encode(self, pixel_samples: torch.Tensor) -> torch.Tensor:
        return self.encode_tiled(pixel_samples)

    def decode_tiled(self, samples, tile_x=None, tile_y=None, overlap=None, tile_t=None, overlap_t=None):
        """Decode in tiles of that many latent frames. The overlap is always our own, which is exact."""
        with node_callbacks() as callbacks:
            waveform = self.to_waveform(samples.movedim(1, -1), callbacks, False, self._tile(tile_y or tile_x))
        return waveform.movedim(1, -1).to(self.output_device)

    def encode_tiled(self, pixel_samples, tile_x=None, tile_y=None, overlap=None, tile_t=None, overlap_t=None):
        """Encode in tiles of that many samples."""
        samples = tile_y or tile_x
        tile = self._tile(samples and samples // HOP)
        with node_callbacks() as callbacks:
            latents = self.to_latents(pixel_samples.movedim(-1, 1), SAMPLE_RATE, callbacks, tile)
        return latents.movedim(-1, 1).to(self.output_device)

    def _tile(self, frames: int | None) -> int:
        return self.TILES[0] if frames is None else max(frames, self.TILES[-1])

    def get_sd(self) -> dict[str, torch.Tensor]:
        """Return the state dict that VAESave writes, in the names that ComfyUI's loaders and ours read."""
        return stable_audio_state(self._network)

    def throw_exception_if_invalid(self) -> None:
        return None

    def spacial_compression_decode(self) -> int:
        return HOP

    def spacial_compression_encode(self) -> int:
        return HOP

    def temporal_compression_decode(self) -> None:
        return None


def song_vae(vae: object) -> SongVAE | NativeVAE:
    """Return the VAE of a socket: ours, or ComfyUI's own for ACE-Step 1.5. Raises RequestError for any other."""
    if isinstance(vae, SongVAE):
        return vae
    if is_song_vae(vae):
        return NativeVAE(vae)
    raise RequestError("vae: this VAE is not for songs. Connect the one of Load Model, or an ACE-Step 1.5 VAE.")
