"""The whole model, and loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from .callbacks import Callbacks
from .errors import CheckpointError
from .models.compiling import compile_parts
from .models.cpu.plugins import install_cpu_plugins
from .models.model import AceStepModel
from .models.oobleck import OobleckVAE
from .models.ops import CastOps, quantized_ops
from .runtime.devices import Precision, pick_device
from .runtime.options import default_placement, pick_compile, pick_graphs, pick_storage
from .runtime.placement import Offload, Placement, Resident
from .sampling.settings import TURBO, VariantDefaults
from .text.prompts import ORIGINAL, STEMS, PromptStyle

if TYPE_CHECKING:
    from .checkpoints.catalog import Variant
    from .text.encoder import TextEncoder


@dataclass
class Model:
    """The networks that make a song, and who places them. A stage needs only its own part; the others may be None.

    network: needs its `silence_latent` (see checkpoints.loading.ensure_silence).
    defaults: the sampling that the variant's authors recommend.
    origin: what it was loaded from, for `Recipe`.
    note: a sentence the checkpoint wants its user to read, or empty.
    style: how its prompts are written.
    graphs: a step of the transformer is recorded and replayed as a CUDA graph.
    """

    network: AceStepModel | None = None
    text_encoder: TextEncoder | None = None
    vae: OobleckVAE | None = None
    defaults: VariantDefaults = TURBO
    placement: Placement = field(default_factory=lambda: Resident(torch.device("cpu")))
    origin: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    style: PromptStyle = ORIGINAL
    graphs: bool = False


def load_model(
    name_or_path: str | Path = "nano",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | Precision = "auto",
    vae: str | Path | None = None,
    text_encoder: str | Path | None = None,
    variant: str | None = None,
    storage: str | None = None,
    offload: bool = False,
    stream: bool = False,
    graphs: bool = False,
    compile: bool = False,
    models_dir: str | None = None,
    callbacks: Callbacks | None = None,
) -> Model:
    """The whole model of a name from the catalog ("nano", "turbo", …), or at a path in any of its layouts.

    dtype: for all networks (`Precision.pick`), or a `Precision` for each. vae, text_encoder: names or paths, instead of
    the model's own. variant: what the model is when its files do not say. storage: "int8" or "fp8", what the
    transformer's matrices are kept in, at half the memory of bfloat16; they compute in their dtype all the same.
    offload: networks visit the device one at a time. stream: so do the layers of the diffusion model. Both are for
    devices with memory of their own. graphs: a step of the transformer is one launch instead of a thousand, for CUDA
    devices that are quicker than what launches them. compile: on a GPU with Triton, layers and activations are compiled
    when they first run, which takes a while. models_dir: where to look, instead of the default folders.
    Raises RequestError or CheckpointError.
    """
    from .checkpoints.build import ensure_silence, load_network, load_text_encoder, load_vae
    from .checkpoints.catalog import Kind, default_roots
    from .checkpoints.dimensions import read_config
    from .checkpoints.find import find_checkpoint, find_part

    device = pick_device(device)
    precision = dtype if isinstance(dtype, Precision) else Precision.pick(device, dit=dtype)
    placement = default_placement(device, offload, stream, callbacks)
    graphs = pick_graphs(device, graphs, stream, callbacks)
    compile = pick_compile(device, compile, callbacks)
    kept = pick_storage(device, storage)
    home = torch.device("cpu") if isinstance(placement, Offload) else device
    roots = default_roots(models_dir)
    parts = find_checkpoint(name_or_path, roots)
    vae_path = find_part(Kind.VAE, vae, roots) if vae else parts.path_of(Kind.VAE)
    text_path = find_part(Kind.TEXT_ENCODER, text_encoder, roots) if text_encoder else parts.path_of(Kind.TEXT_ENCODER)
    # A folder brings its own tokenizer; a single file has none and uses the one found for the model.
    words = None if text_path.is_dir() else parts.path_of(Kind.TOKENIZER)

    network, report = load_network(
        parts.network,
        device=home,
        dtype=precision.dit,
        variant=variant,
        ops=nn if kept is None else quantized_ops(kept),
        encoder_ops=CastOps if precision.condition != precision.dit else None,
        callbacks=callbacks,
    )
    text_encoder_model, _ = load_text_encoder(
        text_path, device=home, dtype=precision.text_encoder, tokenizer=words, callbacks=callbacks
    )
    check_widths(network, text_encoder_model)
    vae_model, _ = load_vae(vae_path, device=home, dtype=precision.vae, callbacks=callbacks)
    for part in (network, vae_model):
        install_cpu_plugins(part, device)
    with placement.use(vae_model):
        ensure_silence(network, vae_model, callbacks)
    if compile:
        # On NVIDIA's cards activations are one kernel already.
        compile_parts(*((network,) if device.type == "cuda" and not torch.version.hip else (network, vae_model)))
    given = {
        "model": name_or_path, "vae": vae, "text_encoder": text_encoder, "variant": variant,
        "storage": storage if kept else None,
    }  # fmt: skip
    return Model(
        network=network,
        text_encoder=text_encoder_model,
        vae=vae_model,
        defaults=recommended(report.variant),
        placement=placement,
        origin={name: str(value) for name, value in given.items() if value is not None},
        note=read_config(parts.network).get("acestep_note", ""),
        style=prompt_style(network),
        graphs=graphs,
    )


def prompt_style(network: AceStepModel) -> PromptStyle:
    """How the prompts of a model are written."""
    return STEMS if network.config.is_lego_sft else ORIGINAL


def check_widths(network: AceStepModel, text_encoder: TextEncoder) -> None:
    """Raises CheckpointError where the one cannot read what the other gives."""
    width = text_encoder.module.config.hidden_size
    if width != network.config.text_hidden_dim:
        raise CheckpointError(
            f"this text encoder gives {width} values a token, the diffusion model reads "
            f"{network.config.text_hidden_dim}: they do not belong together"
        )


def recommended(variant: Variant) -> VariantDefaults:
    """How the authors of a variant sample it."""
    return VariantDefaults(variant.steps, variant.shift, variant.guidance, variant.is_turbo)
