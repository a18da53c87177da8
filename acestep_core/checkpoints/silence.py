"""The latents of digital silence, which stand for "no source" and "no reference". Zeros instead make drones.

The latents come from the checkpoint, or the VAE encodes silence.
"""

from __future__ import annotations

import logging
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

from ..callbacks import Callbacks
from ..config import HOP, LATENT_CHANNELS
from ..errors import CheckpointError, NonFiniteError, first_line
from ..models.model import AceStepModel
from ..models.oobleck import OobleckVAE
from .reader import TensorEntry, TensorReader

log = logging.getLogger("acestep")

# A latent frame depends on 7 frames of sound to each side. The first 8 frames of silence therefore differ from its
# interior, and all interior frames are equal.
START_FRAMES = 8
ENCODED_FRAMES = 32


def stored_silence(source: TensorEntry | Path, channels: int = LATENT_CHANNELS) -> torch.Tensor:
    """Read a checkpoint's silence, float32 `[1, frames, channels]`.

    source: `silence_latent.pt` (channels first) or the buffer of a diffusers folder. Raises CheckpointError for a
    pickle that holds anything but such a tensor.
    """
    if isinstance(source, Path):
        where, content = str(source), _unpickle(source)
    else:
        where, content = f"{source.name} in {source.file}", TensorReader().read(source)
    if not isinstance(content, torch.Tensor):
        raise CheckpointError(f"{where} should hold one tensor, it holds a {type(content).__name__}")
    tensor = content
    if tensor.layout != torch.strided or tensor.is_meta or not tensor.is_floating_point():
        raise CheckpointError(f"{where} should hold plain numbers, it holds {tensor.dtype} as {tensor.layout}")
    if tensor.dim() == 3 and tensor.shape[0] == 1 and isinstance(source, Path) and tensor.shape[1] == channels:
        tensor = tensor.transpose(1, 2)
    if tensor.dim() != 3 or tensor.shape[0] != 1 or tensor.shape[1] < 1 or tensor.shape[2] != channels:
        raise CheckpointError(f"{where} should have the shape [1, frames, {channels}], it has {list(tensor.shape)}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():  # expanded: it may have any size
        raise CheckpointError(f"{where} should hold all of its {tensor.shape[1]:,} frames, it holds fewer numbers")
    tensor = tensor.detach().resolve_neg().to(torch.float32).contiguous()
    if not np.isfinite(tensor.numpy()).all():  # torch would start its threads, which takes longer than the check
        raise CheckpointError(f"{where} holds NaN or infinity; download the file again")
    return tensor


def _unpickle(path: Path) -> object:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(item.file_size for item in archive.infolist())
            if size > path.stat().st_size:  # torch.save compresses nothing
                raise CheckpointError(f"{path} is refused: it would unpack to {size:,} bytes")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} is refused: it holds more than tensors and could run code") from error
    except CheckpointError:
        raise
    except Exception as error:  # torch raises errors of many types for a damaged file
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error


def encode_silence(vae: OobleckVAE, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Encode silence with the VAE and return the mean, float32 `[1, 9, 64]` on the CPU.

    The latents are the first 8 frames and an interior one, which stands for every later frame.

    device, dtype: of the VAE. Raises NonFiniteError.
    """
    with torch.inference_mode(False), torch.no_grad():
        waveform = torch.zeros(1, 2, ENCODED_FRAMES * HOP, device=device, dtype=dtype)
        latents = vae.encode(waveform).to(device="cpu", dtype=torch.float32)
        interior = latents[:, ENCODED_FRAMES // 2, None]
        silence = torch.cat([latents[:, :START_FRAMES], interior], dim=1)
    if not torch.isfinite(silence).all():
        raise NonFiniteError.of_vae("silence latent", dtype)
    return silence


def ensure_silence(model: AceStepModel, vae: OobleckVAE, callbacks: Callbacks | None = None) -> None:
    """Set `model.silence_latent` by encoding silence with the VAE, if the checkpoint has none."""
    if model.silence_latent is not None:
        return
    callbacks = callbacks or Callbacks()
    callbacks.check("encode silence")
    weight = vae.encoder.conv1.weight
    silence = encode_silence(vae, weight.device, weight.dtype)
    log.info("silence latent: not in the checkpoint, encoded with the VAE")
    with torch.inference_mode(False):
        model.silence_latent = silence.to(model.null_condition_emb.device)
    callbacks.report("encode silence", 1, 1)
