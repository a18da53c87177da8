"""Load checkpoints into the sockets that carry them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_base

from ...acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from ...acestep_core.checkpoints.catalog import Kind
from ...acestep_core.checkpoints.configs import model_note
from ...acestep_core.checkpoints.network_layouts import open_network
from ...acestep_core.load import check_vae, check_widths, prompt_style, recommended
from ...acestep_core.planner.load_planner import load_planner_network
from .model import wrap_network
from .ops import comfy_ops, quantized_layers, stored_layers
from .placement import storage_devices
from .planner import PlacedPlanner
from .precision import encoder_dtype, network_dtypes, planner_dtypes, text_encoder_dtype, vae_dtype
from .progress import node_callbacks, show_notes
from .text_encoder import PlacedTextEncoder
from .vae import SongVAE

if TYPE_CHECKING:
    from ...acestep_core.checkpoints.find import Checkpoint

# Qwen's own vocabulary, which ComfyUI ships for its text encoders. Single files hold none.
BUNDLED_TOKENIZER = Path(comfy.model_base.__file__).parent / "text_encoders" / "qwen25_tokenizer"


def load_model_sockets(parts: Checkpoint, dtype: str, variant: str | None) -> tuple[object, PlacedTextEncoder, SongVAE]:
    """Load MODEL, text encoder and VAE onto ComfyUI's offload devices. Show the checkpoint's note on the node."""
    storage, compute = network_dtypes(dtype, open_network(parts.network, variant).parameters)
    text_encoder = parts.path_of(Kind.TEXT_ENCODER)
    has_tokenizer = parts.tokenizer is not None or text_encoder.is_dir()
    devices, vae_compute = storage_devices(), vae_dtype()
    ops = comfy_ops(storage, compute)
    if storage != compute:
        ops.layers = stored_layers(ops, storage)
    with node_callbacks() as callbacks:
        network, _ = load_network(
            parts.network,
            device=devices.network,
            dtype=compute,
            variant=variant,
            ops=ops,
            encoder_ops=comfy_ops(storage, encoder_dtype(compute)),
            callbacks=callbacks,
        )
        encoder, _ = load_text_encoder(
            text_encoder,
            device=devices.text_encoder,
            dtype=text_encoder_dtype(),
            tokenizer=parts.tokenizer if has_tokenizer else BUNDLED_TOKENIZER,
            callbacks=callbacks,
        )
        check_widths(network, encoder)
        vae, _ = load_vae(
            parts.path_of(Kind.VAE),
            device=devices.vae,
            dtype=vae_compute,
            ops=comfy_ops(vae_compute, vae_compute),
            callbacks=callbacks,
        )
        check_vae(network, vae)
        song_vae = SongVAE(vae)
        if network.silence_latent is None:
            song_vae.encode_silence(network, callbacks)
    show_notes(model_note(parts.network))
    model = wrap_network(network, recommended(network), storage, compute)
    return model, PlacedTextEncoder(encoder, prompt_style(network)), song_vae


def load_planner_socket(path: Path, tokenizer: Path | None, dtype: str) -> PlacedPlanner:
    """Load the planner at `path` onto ComfyUI's offload device.

    tokenizer: the folder for a single file. If None, the tokenizer that ComfyUI ships.
    """
    storage, compute = planner_dtypes(dtype)
    ops = comfy_ops(compute, compute, wide=True)
    if storage is not None:
        ops.layers = quantized_layers(storage)
    with node_callbacks() as callbacks:
        network, vocabulary, _ = load_planner_network(
            path,
            device=storage_devices().text_encoder,
            dtype=compute,
            tokenizer=tokenizer if tokenizer is not None or path.is_dir() else BUNDLED_TOKENIZER,
            ops=ops,
            callbacks=callbacks,
        )
    return PlacedPlanner(network, vocabulary)
