"""The model: its networks, and loading them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from .adapters.adapter import Adapter
from .adapters.adapter_file import read_adapter
from .adapters.adapter_folders import find_adapter, lora_folders
from .adapters.merge import AdapterUse, merge, parameter_changes
from .adapters.recorded_adapter import RecordedAdapter
from .callbacks import Callbacks
from .errors import CheckpointError, RequestError
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
    from .text.encoder import TextEncoder

AdapterLike: TypeAlias = "str | Path | Adapter | AdapterUse | tuple[str | Path | Adapter, float]"


@dataclass
class Model:
    """The networks of a song and their placement. A stage needs only its own network. The others may be None.

    Threads may share a Model that is resident and has no `graphs`. Otherwise it serves one stage at a time, because
    offload and streams move the weights, and a host sets its attention on the networks. Of the whole process, a Model
    changes one setting, the limit of recompilations with `compile`.

    network: with its `silence_latent`, see `checkpoints.silence.ensure_silence`.
    defaults: the recommended sampling of the variant.
    placement: brings a network to its device for a stage.
    origin: the arguments of `load_model`, for `Recipe`.
    note: a note to the user from the checkpoint, or an empty string.
    style: the form of the prompts.
    graphs: True replays steps of the transformer as a CUDA graph.
    adapters: merged into the network, for `Recipe`.
    second: the same network for a second device, which computes the unconditional half of guidance there.
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
    adapters: tuple[RecordedAdapter, ...] = ()
    second: Model | None = None


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
    adapters: Sequence[AdapterLike] = (),
    models_dir: str | None = None,
    callbacks: Callbacks | None = None,
) -> Model:
    """Load a model by its name in the catalog ("nano", "turbo", …) or from a path in any layout.

    dtype: for all networks, or a `Precision` with one for each.
    vae, text_encoder: names or paths, instead of the model's own.
    variant: the model variant, if the files do not contain it.
    storage: "int8" or "fp8" for the matrices of the transformer, half the memory of bfloat16. They compute in
        `dtype`.
    offload: True keeps networks in host memory and moves one at a time to the device. Ignored on a device that
        shares host memory.
    stream: `offload` that also moves the layers of the diffusion model one at a time.
    graphs: True replays each step of the transformer as one CUDA graph, for GPUs that wait for kernel launches.
    compile: True compiles layers and activations at their first use, on GPUs with Triton. The first run takes longer.
    adapters: LoRAs and other adapters, merged into the diffusion model before it is quantised. Each is a name in the
        folders of LoRAs, a path, an `Adapter`, a pair of one of them and a strength, or an `AdapterUse`.
    models_dir: a folder of models, instead of the default ones.

    Raises RequestError, CheckpointError, Cancelled, and NonFiniteError if an adapter drives a weight out of range.
    """
    from .checkpoints.build import load_network, load_text_encoder, load_vae
    from .checkpoints.catalog import Kind
    from .checkpoints.configs import model_note
    from .checkpoints.find import find_checkpoint, find_part
    from .checkpoints.gguf_header import is_gguf
    from .checkpoints.installed import default_roots
    from .checkpoints.silence import ensure_silence

    device = pick_device(device)
    precision = dtype if isinstance(dtype, Precision) else Precision.pick(device, dit=dtype)
    placement = default_placement(device, offload, stream, callbacks)
    graphs = pick_graphs(device, graphs, stream, callbacks)
    compile = pick_compile(device, compile, callbacks)
    storage_dtype = pick_storage(device, storage)
    storage_device = torch.device("cpu") if isinstance(placement, Offload) else device
    roots = default_roots(models_dir)
    uses = _adapter_uses(adapters, roots)
    parts = find_checkpoint(name_or_path, roots)
    vae_path = find_part(Kind.VAE, vae, roots) if vae else parts.path_of(Kind.VAE)
    text_path = find_part(Kind.TEXT_ENCODER, text_encoder, roots) if text_encoder else parts.path_of(Kind.TEXT_ENCODER)
    # A folder and a GGUF file contain their tokenizer. Another single file uses the tokenizer of the model.
    tokenizer = None if text_path.is_dir() or is_gguf(text_path) else parts.path_of(Kind.TOKENIZER)

    network, _ = load_network(
        parts.network,
        device=storage_device,
        dtype=precision.dit,
        variant=variant,
        ops=nn if storage_dtype is None else quantized_ops(storage_dtype),
        encoder_ops=CastOps if precision.condition != precision.dit else None,
        changes_of=(lambda network: parameter_changes(network, uses)) if uses else None,
        callbacks=callbacks,
    )
    text_encoder_model, _ = load_text_encoder(
        text_path, device=storage_device, dtype=precision.text_encoder, tokenizer=tokenizer, callbacks=callbacks
    )
    check_widths(network, text_encoder_model)
    vae_model, _ = load_vae(vae_path, device=storage_device, dtype=precision.vae, callbacks=callbacks)
    check_vae(network, vae_model)
    for part in (network, vae_model):
        install_cpu_plugins(part, device)
    if network.silence_latent is None:
        with placement.use(vae_model):
            ensure_silence(network, vae_model, callbacks)
    if compile:
        # On NVIDIA GPUs the activations of the VAE are a fused kernel already.
        compile_parts(*((network,) if device.type == "cuda" and not torch.version.hip else (network, vae_model)))
    origin = {
        "model": name_or_path, "vae": vae, "text_encoder": text_encoder, "variant": variant,
        "storage": storage if storage_dtype else None,
    }  # fmt: skip
    return Model(
        network=network,
        text_encoder=text_encoder_model,
        vae=vae_model,
        defaults=recommended(network),
        placement=placement,
        origin={name: str(value) for name, value in origin.items() if value is not None},
        note=model_note(parts.network),
        style=prompt_style(network),
        graphs=graphs,
        adapters=tuple(use.recorded() for use in uses),
    )


def with_adapters(model: Model, adapters: Sequence[AdapterLike], *, models_dir: str | None = None) -> Model:
    """Return the model with adapters merged into its diffusion model. The given model stays as it is.

    adapters, models_dir: as for `load_model`. Unchanged tensors are shared. Give all adapters in one call: the
    difference of DoRA depends on the weights of the given model. Quantised weights are dequantised, changed and
    quantised again, so `load_model(..., adapters=...)` is more exact for them.

    Raises RequestError, CheckpointError and NonFiniteError.
    """
    from .checkpoints.installed import default_roots

    if model.network is None:
        raise RequestError("model: loaded without a diffusion model, which adapters change")
    uses = _adapter_uses(adapters, default_roots(models_dir))
    recorded = (*model.adapters, *(use.recorded() for use in uses))
    return replace(model, network=merge(model.network, uses), adapters=recorded)


def _adapter_uses(adapters: Sequence[AdapterLike], roots: Sequence[Path]) -> list[AdapterUse]:
    if isinstance(adapters, (str, Path)) or not isinstance(adapters, Sequence):
        raise RequestError(f"adapters must be a list of names, paths or pairs with a strength, got {adapters!r:.80}")
    folders = lora_folders(roots)
    return [_adapter_use(item, folders) for item in adapters]


def _adapter_use(item: AdapterLike, folders: Sequence[Path]) -> AdapterUse:
    if isinstance(item, AdapterUse):
        return item
    adapter, strength = item if isinstance(item, tuple) and len(item) == 2 else (item, 1.0)
    if isinstance(adapter, (str, Path)):
        adapter = read_adapter(find_adapter(adapter, folders))
    if not isinstance(adapter, Adapter):
        raise RequestError(f"adapters: {item!r:.80} is no name, path, Adapter or AdapterUse")
    return AdapterUse(adapter, strength)


def prompt_style(network: AceStepModel) -> PromptStyle:
    """Return the form of a model's prompts."""
    return STEMS if network.config.is_lego_sft else ORIGINAL


def check_widths(network: AceStepModel, text_encoder: TextEncoder) -> None:
    """Raise CheckpointError if text encoder and diffusion model have different widths."""
    width = text_encoder.module.config.hidden_size
    if width != network.config.text_hidden_dim:
        raise CheckpointError(
            f"text_encoder: gives {width} values per token, the diffusion model needs "
            f"{network.config.text_hidden_dim}; choose the text encoder of the model"
        )


def check_vae(network: AceStepModel, vae: OobleckVAE) -> None:
    """Raise CheckpointError if VAE and diffusion model have different latents."""
    channels = vae.config.decoder_input_channels
    if channels != network.config.audio_acoustic_hidden_dim:
        raise CheckpointError(
            f"vae: has latents of {channels} channels, the diffusion model needs "
            f"{network.config.audio_acoustic_hidden_dim}; choose the VAE of the model"
        )


def recommended(network: AceStepModel) -> VariantDefaults:
    """Return the sampling that the authors recommend for the variant of a model."""
    from .checkpoints.variants import VARIANTS

    variant = VARIANTS[network.config.model_version]
    return VariantDefaults(variant.steps, variant.shift, variant.guidance, variant.is_turbo)
