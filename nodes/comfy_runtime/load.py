"""Load checkpoints into the sockets that carry them, and into patchers when ComfyUI needs a model again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import comfy.model_base
import comfy.model_management as mm
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from ...acestep_core.callbacks import Callbacks
from ...acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from ...acestep_core.checkpoints.catalog import Kind
from ...acestep_core.checkpoints.configs import model_note
from ...acestep_core.checkpoints.gguf_header import is_gguf
from ...acestep_core.checkpoints.network_layouts import open_network
from ...acestep_core.load import check_vae, check_widths, prompt_style, recommended
from ...acestep_core.models.model import AceStepModel
from ...acestep_core.models.oobleck import OobleckVAE
from ...acestep_core.planner.load_planner import load_planner_network
from ...acestep_core.planner.network import PlannerNetwork
from ...acestep_core.planner.vocabulary import Vocabulary
from ...acestep_core.runtime.placement import tensors_of
from .model import wrap_network
from .ops import comfy_ops, quantized_layers, stored_layers
from .placement import set_factory, storage_devices
from .planner import PlacedPlanner
from .precision import encoder_dtype, network_dtypes, planner_dtypes, text_encoder_dtype, vae_dtype
from .progress import node_callbacks, show_notes
from .text_encoder import PlacedTextEncoder
from .vae import SongVAE

if TYPE_CHECKING:
    from ...acestep_core.checkpoints.find import Checkpoint

Network = TypeVar("Network", bound=torch.nn.Module)

# Qwen's own vocabulary, which ComfyUI ships for its text encoders. Single files hold none.
BUNDLED_TOKENIZER = Path(comfy.model_base.__file__).parent / "text_encoders" / "qwen25_tokenizer"


def load_model_sockets(parts: Checkpoint, dtype: str, variant: str | None) -> tuple[object, PlacedTextEncoder, SongVAE]:
    """Load MODEL, text encoder and VAE onto ComfyUI's offload devices. Show the checkpoint's note on the node."""
    text_encoder, vae_path = parts.path_of(Kind.TEXT_ENCODER), parts.path_of(Kind.VAE)
    has_own = text_encoder.is_dir() or is_gguf(text_encoder)
    tokenizer = parts.tokenizer if parts.tokenizer is not None or has_own else BUNDLED_TOKENIZER
    with node_callbacks() as callbacks:
        network, dtypes = _load_network(parts.network, dtype, variant, callbacks)
        encoder, _ = load_text_encoder(
            text_encoder,
            device=storage_devices().text_encoder,
            dtype=text_encoder_dtype(),
            tokenizer=None if is_gguf(text_encoder) else tokenizer,
            callbacks=callbacks,
        )
        _leave_maps(encoder.module)
        check_widths(network, encoder)
        vae = _load_vae(vae_path, callbacks)
        check_vae(network, vae)
        song_vae = SongVAE(vae)
        if network.silence_latent is None:
            song_vae.encode_silence(network, callbacks)
    show_notes(model_note(parts.network))
    model = wrap_network(network, recommended(network), *dtypes)
    set_factory(model, _model_patcher, parts.network, dtype, variant, network.silence_latent)
    set_factory(song_vae.patcher, _vae_patcher, vae_path)
    return model, PlacedTextEncoder(encoder, prompt_style(network)), song_vae


def load_planner_socket(
    path: Path, tokenizer: Path | None, dtype: str, device: torch.device | None = None
) -> PlacedPlanner:
    """Load the planner at `path` onto ComfyUI's offload device.

    tokenizer: the folder for a single file. If None, the tokenizer that ComfyUI ships.
    device: where it runs. None is ComfyUI's default device.
    """
    device = device or mm.get_torch_device()
    planner = PlacedPlanner(*_load_planner(path, tokenizer, dtype, device), device)
    set_factory(planner.patcher, _planner_patcher, path, tokenizer, dtype, device)
    return planner


def _model_patcher(
    path: Path, dtype: str, variant: str | None, silence: torch.Tensor, disable_dynamic: bool = False
) -> ModelPatcher:
    """Load the network of a MODEL again. `silence` may come from a VAE, which is not loaded."""
    with node_callbacks() as callbacks:
        network, dtypes = _load_network(path, dtype, variant, callbacks)
    network.silence_latent = silence
    return wrap_network(network, recommended(network), *dtypes, dynamic=not disable_dynamic)


def _vae_patcher(path: Path, disable_dynamic: bool = False) -> ModelPatcher:
    with node_callbacks() as callbacks:
        return SongVAE(_load_vae(path, callbacks)).patcher


def _planner_patcher(
    path: Path, tokenizer: Path | None, dtype: str, device: torch.device, disable_dynamic: bool = False
) -> ModelPatcher:
    return PlacedPlanner(*_load_planner(path, tokenizer, dtype, device), device).patcher


def _load_network(
    path: Path, dtype: str, variant: str | None, callbacks: Callbacks
) -> tuple[AceStepModel, tuple[torch.dtype, torch.dtype]]:
    """Return the network, and the dtypes that it stores and computes in."""
    storage, compute = network_dtypes(dtype, open_network(path, variant).parameters)
    ops = comfy_ops(storage, compute)
    if storage != compute:
        ops.layers = stored_layers(ops, storage)
    network, _ = load_network(
        path,
        device=storage_devices().network,
        dtype=compute,
        variant=variant,
        ops=ops,
        encoder_ops=comfy_ops(storage, encoder_dtype(compute)),
        callbacks=callbacks,
    )
    return _leave_maps(network), (storage, compute)


def _load_vae(path: Path, callbacks: Callbacks) -> OobleckVAE:
    dtype = vae_dtype()
    ops = comfy_ops(dtype, dtype)
    vae, _ = load_vae(path, device=storage_devices().vae, dtype=dtype, ops=ops, callbacks=callbacks)
    return _leave_maps(vae)


def _load_planner(
    path: Path, tokenizer: Path | None, dtype: str, device: torch.device
) -> tuple[PlannerNetwork, Vocabulary]:
    storage, compute = planner_dtypes(dtype, device)
    ops = comfy_ops(compute, compute, wide=True)
    if storage is not None:
        ops.layers = quantized_layers(storage)
    with node_callbacks() as callbacks:
        network, vocabulary, _ = load_planner_network(
            path,
            device=storage_devices().text_encoder,
            dtype=compute,
            tokenizer=tokenizer if tokenizer is not None or path.is_dir() or is_gguf(path) else BUNDLED_TOKENIZER,
            ops=ops,
            callbacks=callbacks,
        )
    return _leave_maps(network), vocabulary


def _leave_maps(network: Network) -> Network:
    """Copy the weights out of the memory map of their file, if ComfyUI runs with --disable-mmap."""
    if comfy.utils.DISABLE_MMAP:
        with torch.inference_mode(False):
            for tensor in tensors_of(network):
                if tensor.device.type == "cpu":
                    tensor.data = tensor.data.clone()
    return network
