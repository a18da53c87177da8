"""The files of a model, and loading each network only when it is needed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..callbacks import Callbacks
from ..checkpoints.build import load_network, load_text_encoder, load_vae
from ..checkpoints.catalog import Kind
from ..checkpoints.find import find_checkpoint, find_part
from ..checkpoints.gguf_header import is_gguf
from ..checkpoints.installed import default_roots
from ..checkpoints.network_layouts import open_network
from ..load import check_vae, check_widths
from ..models.cpu.plugins import install_cpu_plugins
from ..models.model import AceStepModel
from ..models.oobleck import OobleckVAE
from ..models.ops import quantized_ops
from ..text.encoder import TextEncoder


class ModelParts:
    """The files of a model.

    network, vae, text_encoder: paths. variant, tokenizer: as for `load_model`.
    described: the diffusion model without weights, for what its configuration says.

    Raises CheckpointError.
    """

    def __init__(
        self,
        model: str | Path,
        vae: str | Path | None,
        text_encoder: str | Path | None,
        variant: str | None,
        models_dir: str | None,
        callbacks: Callbacks,
        tokenizer: str | Path | None = None,
    ):
        roots = default_roots(models_dir)
        found = find_checkpoint(model, roots)
        self.network, self.variant, self._callbacks = found.network, variant, callbacks
        self.vae = find_part(Kind.VAE, vae, roots) if vae else found.path_of(Kind.VAE)
        kind = Kind.TEXT_ENCODER
        self.text_encoder = find_part(kind, text_encoder, roots) if text_encoder else found.path_of(kind)
        self._tokenizer = None if tokenizer is None else Path(tokenizer)
        if tokenizer is None and not (self.text_encoder.is_dir() or is_gguf(self.text_encoder)):
            self._tokenizer = found.path_of(Kind.TOKENIZER)
        self.described = AceStepModel(open_network(self.network, variant).config, device="meta")

    def load_vae(self, device: torch.device, dtype: torch.dtype) -> OobleckVAE:
        vae, _ = load_vae(self.vae, dtype=dtype, callbacks=self._callbacks)
        check_vae(self.described, vae)
        install_cpu_plugins(vae, device)
        return vae

    def load_text_encoder(self, dtype: torch.dtype) -> TextEncoder:
        encoder, _ = load_text_encoder(
            self.text_encoder, dtype=dtype, tokenizer=self._tokenizer, callbacks=self._callbacks
        )
        check_widths(self.described, encoder)
        return encoder

    def load_network(self, dtype: torch.dtype, storage: torch.dtype | None = None) -> AceStepModel:
        """Load the diffusion model into host memory, without plug-ins, which may have no gradient."""
        network, _ = load_network(
            self.network,
            dtype=dtype,
            variant=self.variant,
            ops=nn if storage is None else quantized_ops(storage),
            callbacks=self._callbacks,
        )
        return network
