"""Load each network of a model from a path, in any of its layouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..callbacks import Callbacks
from ..errors import CheckpointError
from ..models.layers import Ops
from ..models.model import AceStepModel
from ..models.oobleck import OobleckVAE
from .gguf_header import read_gguf_tokenizer
from .layouts import CheckpointSource, Layout, is_diffusers
from .network_layouts import open_network
from .qwen3_layouts import open_text_encoder
from .silence import stored_silence
from .vae_layouts import open_vae
from .weights import ChangesOf, LoadReport, load_weights

if TYPE_CHECKING:
    from ..text.encoder import TextEncoder
    from ..text.tokenizer import Tokenizer


def load_network(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    ops: Ops = nn,
    encoder_ops: Ops | None = None,
    changes_of: ChangesOf[AceStepModel] | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[AceStepModel, LoadReport]:
    """Load the diffusion model with its encoders from an original or diffusers folder, a ComfyUI file, or GGUF.

    variant: a name in VARIANTS, instead of the checkpoint's variant. The name becomes `model_version` in the config.
    ops, encoder_ops: as for AceStepModel.
    changes_of: as for `load_weights`, for adapters.

    If the checkpoint has no silence latent, `silence_latent` is None: call `ensure_silence`. Otherwise it is float32 on
    `device`. Raises CheckpointError, RequestError for an unknown variant, and NonFiniteError as `load_weights`.
    """
    source, callbacks = open_network(Path(path), variant), callbacks or Callbacks()
    if source.guessed:
        callbacks.warn(
            f"{source.path.name} does not state its variant; {source.variant.name} is assumed. Set the variant if that "
            "is wrong"
        )
    silence = None
    if source.silence is not None:
        with torch.inference_mode(False):  # training cannot use tensors of a host's inference mode
            silence = stored_silence(source.silence, source.config.audio_acoustic_hidden_dim).to(device)
    config = replace(source.config, model_version=source.variant.name, is_turbo=source.variant.is_turbo)

    def build() -> AceStepModel:
        model = AceStepModel(config, ops, "meta", dtype, encoder_ops)
        for part in source.without:
            setattr(model, part, None)
        return model

    model, report = load_weights(build, source, device, dtype, callbacks, changes_of)
    if silence is not None:
        model.silence_latent = silence
    return model, report


def load_vae(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    ops: Ops = nn,
    callbacks: Callbacks | None = None,
) -> tuple[OobleckVAE, LoadReport]:
    """Load the VAE from its folder, a diffusers folder, a single file, or an all-in-one file.

    The tensor names are those of diffusers or stable-audio-tools. Weight norm is folded into the weights. Raises
    CheckpointError.
    """
    source = open_vae(Path(path))
    return load_weights(lambda: OobleckVAE(source.config, ops, "meta", dtype), source, device, dtype, callbacks)


def load_text_encoder(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer: str | Path | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[TextEncoder, LoadReport]:
    """Load the text encoder with its tokenizer from its folder, a diffusers folder, or a ComfyUI file.

    tokenizer: as for `open_tokenizer`. Raises CheckpointError.
    """
    from ..text.encoder import TextEncoder, build_qwen3, materialise_buffers

    source = open_text_encoder(Path(path))
    text_tokenizer = open_tokenizer(path, source, tokenizer)
    module, report = load_weights(lambda: build_qwen3(source.config, "meta", dtype), source, device, dtype, callbacks)
    materialise_buffers(module, device)
    return TextEncoder(module, text_tokenizer), report


def open_tokenizer(path: str | Path, source: CheckpointSource[Any], tokenizer: str | Path | None) -> Tokenizer:
    """Return the tokenizer of a text encoder or planner that was opened from `path`.

    tokenizer: a folder with `tokenizer.json`, or with `vocab.json` and `merges.txt`. Required for a single file, which
    holds no tokenizer, unless it is a GGUF file. Raises CheckpointError if a required folder is not given.
    """
    from ..text.tokenizer import Tokenizer

    if tokenizer is not None:
        return Tokenizer.from_folder(tokenizer)
    if is_diffusers(Path(path)):
        return Tokenizer.from_folder(Path(path) / "tokenizer")
    if source.path.is_dir():
        return Tokenizer.from_folder(source.path)
    if source.layout is Layout.GGUF:
        return Tokenizer.from_lists(source.path, *read_gguf_tokenizer(source.path))
    raise CheckpointError(
        f"{path} is a single file and holds no tokenizer; "
        "give a folder with tokenizer.json, or with vocab.json and merges.txt"
    )
