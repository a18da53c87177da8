"""ComfyUI's own VAE object where a song's is wanted: the one that later versions load for their ACE-Step 1.5."""

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
    """What our nodes ask of a `SongVAE`, by `decode` and `encode` of a `comfy.sd.VAE`, in tiles that leave no seam.

    ComfyUI places the network itself. Its `encode` may draw from the posterior instead of giving its mean.
    """

    def __init__(self, vae: Any):
        self._model = pipeline.Model(vae=_Network(vae), placement=_PlacedByComfyUI(vae.device))

    def to_waveform(
        self, latents: torch.Tensor, callbacks: Callbacks, normalize: bool, edit: Edit | None = None
    ) -> torch.Tensor:
        """Latents [B, T, 64], made by `edit` if by any, to a waveform [B, 2, N] at 48 kHz."""
        return pipeline.decode(self._model, latents, normalize=normalize, edit=edit, callbacks=callbacks)

    def to_latents(self, waveform: torch.Tensor, rate: float, callbacks: Callbacks) -> torch.Tensor:
        """A waveform [B, channels, N] to latents [B, T, 64]."""
        return pipeline.encode_audio(self._model, waveform, rate, callbacks=callbacks)


class _PlacedByComfyUI:
    """The core's `Placement` for what comes to its device by itself."""

    def __init__(self, device: torch.device):
        self._device = device

    def use(self, module: object) -> AbstractContextManager[torch.device]:
        return nullcontext(self._device)


class _Network:
    """The core's VAE, at 48 kHz whatever the rate of the one inside. Raises RequestError for another frame rate."""

    config = VAEConfig()

    def __init__(self, vae: Any):
        self._vae, self.dtype = vae, vae.vae_dtype
        self._encoded_rate, self._decoded_rate = vae_rates(vae)
        hops = vae.spacial_compression_encode(), vae.spacial_compression_decode()
        for rate, hop in zip((self._encoded_rate, self._decoded_rate), hops, strict=True):
            if rate != FRAME_RATE * hop:
                raise RequestError(
                    f"this VAE is for other audio latents, {rate / hop:.1f} of them a second instead of {FRAME_RATE}: "
                    "connect the one from Load Model, or an ACE-Step 1.5 VAE"
                )

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """[B, T, 64] to [B, 2, 1920 T]."""
        sound = self._vae.decode(latents.movedim(-1, 1)).movedim(-1, 1)
        return resample(to_stereo(sound), self._decoded_rate)

    def posterior(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [B, T, 64] of [B, 2, N], and no deviation. Zeros fill the last frame up: ComfyUI would cut it off."""
        padded = torch.nn.functional.pad(waveform, (0, -waveform.shape[-1] % self.config.hop))
        sound = resample(padded, SAMPLE_RATE, self._encoded_rate)
        latents = self._vae.encode(sound.movedim(1, -1)).movedim(1, -1).float()
        return latents, torch.zeros_like(latents)


def is_song_vae(vae: object) -> bool:
    """Whether it turns sequences of 64 numbers into sound and back."""
    return getattr(vae, "latent_channels", None) == LATENT_CHANNELS and getattr(vae, "latent_dim", None) == 1
