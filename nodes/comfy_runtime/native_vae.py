"""ComfyUI's own VAE object for ACE-Step 1.5, as later versions load it, behind our audio nodes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from ...acestep_core import pipeline
from ...acestep_core.audio import resample, to_stereo
from ...acestep_core.callbacks import Callbacks
from ...acestep_core.config import FRAME_RATE, LATENT_CHANNELS, SAMPLE_RATE, VAEConfig
from ...acestep_core.errors import RequestError
from .versions import vae_rates

if TYPE_CHECKING:
    from ...acestep_core.edit.edit import Edit


class NativeVAE:
    """The methods of `SongVAE` over `decode` and `encode` of a `comfy.sd.VAE`, in the core's exact tiles.

    ComfyUI places the network itself. Its `encode` may sample the posterior instead of returning the mean.
    """

    def __init__(self, vae: Any):
        network: Any = _Network(vae)
        self._model = pipeline.Model(vae=network, placement=_OwnPlacement(vae.device))

    def to_waveform(
        self, latents: torch.Tensor, callbacks: Callbacks, normalize: bool, edit: Edit | None = None
    ) -> torch.Tensor:
        """Decode latents [B, T, 64], sampled with `edit`, to a waveform [B, 2, N] at 48 kHz."""
        return pipeline.decode(self._model, latents, normalize=normalize, edit=edit, callbacks=callbacks)

    def to_latents(self, waveform: torch.Tensor, rate: float, callbacks: Callbacks) -> torch.Tensor:
        """Encode a waveform [B, channels, N] to latents [B, T, 64]."""
        return pipeline.encode_audio(self._model, waveform, rate, callbacks=callbacks)


class _OwnPlacement:
    """The core's `Placement` for a VAE that moves its own network."""

    def __init__(self, device: torch.device):
        self._device = device

    def use(self, module: object) -> AbstractContextManager[torch.device]:
        return nullcontext(self._device)


class _Network:
    """A 48 kHz VAE of the core over one of any sample rate. Raises RequestError for another frame rate."""

    config = VAEConfig()

    def __init__(self, vae: Any):
        self._vae, self.dtype = vae, vae.vae_dtype
        self._encoded_rate, self._decoded_rate = vae_rates(vae)
        hops = vae.spacial_compression_encode(), vae.spacial_compression_decode()
        for rate, hop in zip((self._encoded_rate, self._decoded_rate), hops, strict=True):
            if rate != FRAME_RATE * hop:
                raise RequestError(
                    f"vae: its latents have {rate / hop:.1f} frames per second, those of a song {FRAME_RATE}. Connect "
                    "the VAE of Load Model, or an ACE-Step 1.5 VAE."
                )

    def decode(self, latents: torch.Tensor, wide: object = None) -> torch.Tensor:
        """Decode [B, T, 64] to [B, 2, 1920 T]. `wide` is never filled: ComfyUI chooses the dtype."""
        sound = self._vae.decode(latents.movedim(-1, 1)).movedim(-1, 1)
        return resample(to_stereo(sound), self._decoded_rate)

    def posterior(self, waveform: torch.Tensor, wide: object = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode [B, 2, N] to latents [B, T, 64] with zero deviation. ComfyUI would drop an unpadded last frame."""
        padded = torch.nn.functional.pad(waveform, (0, -waveform.shape[-1] % self.config.hop))
        sound = resample(padded, SAMPLE_RATE, self._encoded_rate)
        latents = self._vae.encode(sound.movedim(1, -1)).movedim(1, -1).float()
        return latents, torch.zeros_like(latents)


def is_song_vae(vae: object) -> bool:
    """Return True for a VAE of one-dimensional latents with 64 channels."""
    return getattr(vae, "latent_channels", None) == LATENT_CHANNELS and getattr(vae, "latent_dim", None) == 1
