"""From a path to a network that is ready to run: built empty on the meta device, then filled tensor by tensor.

Names and shapes are compared before the first tensor is read, so a checkpoint that does not fit costs neither time nor
memory. Each tensor goes straight to its device and dtype.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..callbacks import Callbacks
from ..config import ModelConfig
from ..errors import CheckpointError
from ..models.layers import Ops
from ..models.model import AceStepModel
from ..models.oobleck import OobleckVAE
from ..models.ops import QuantizedLinear
from .catalog import Kind, Variant
from .keymaps import to_stable_audio
from .layouts import (
    Layout,
    NetworkSource,
    Source,
    Weight,
    is_diffusers,
    open_network,
    open_text_encoder,
    open_vae,
)
from .reader import Entry, read, read_to
from .silence import encoded_silence, stored_silence, tabulated_silence

if TYPE_CHECKING:
    from ..text.encoder import TextEncoder

log = logging.getLogger("acestep")

READERS = min(4, os.cpu_count() or 1)  # tensors read at a time; more only wait for the same disk
_NAMED = 3  # names shown in an error


@dataclass(frozen=True)
class LoadReport:
    """What a load did. Names are the file's. Missing tensors are an error, so a report never has any but those of
    `without`: optional parts that the checkpoint does not have.
    """

    kind: Kind
    path: Path
    layout: Layout
    matched: int
    unexpected: tuple[str, ...]
    dropped: tuple[str, ...]
    without: tuple[str, ...]
    size: int
    seconds: float
    device: torch.device
    dtype: torch.dtype
    variant: Variant | None = None

    def __str__(self) -> str:
        name = self.kind.value if self.variant is None else f"{self.kind.value} {self.variant.name}"
        extras = (("unexpected", self.unexpected), ("dropped", self.dropped), ("without", self.without))
        counts = ", ".join([f"{self.matched} tensors", *(f"{len(names)} {what}" for what, names in extras if names)])
        dtype = str(self.dtype).removeprefix("torch.")
        took = f"{self.size / 1e9:.2f} GB in {self.seconds:.1f} s"
        return f"{name}: {counts}, {took}, {self.layout.value}, {self.device}, {dtype}"


def load_network(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    ops: Ops = nn,
    encoder_ops: Ops | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[AceStepModel, LoadReport]:
    """The diffusion model with its encoders from an original or diffusers folder, or a ComfyUI file.

    `variant` (a name of catalog.VARIANTS) overrides what the checkpoint or its name says; the model's config carries it
    as `model_version`. `ops`, `encoder_ops`: as for AceStepModel. `silence_latent` lies on `device` in float32; it is
    None where the checkpoint has none: call `ensure_silence`. Raises CheckpointError.
    """
    source, callbacks = open_network(Path(path), variant), callbacks or Callbacks()
    if source.guessed:
        callbacks.warn(
            f"{source.path.name} does not say which variant it is; taken for {source.variant.name}: name its variant "
            "where that is wrong"
        )
    silence = None
    if source.silence is not None:
        silence = stored_silence(source.silence, source.config.audio_acoustic_hidden_dim)
    with refusing(source):
        model = AceStepModel(_named(source), ops, "meta", dtype, encoder_ops)
    for part in source.without:
        setattr(model, part, None)
    report = fill(model, source, torch.device(device), dtype, callbacks)
    if silence is not None:
        model.silence_latent = silence.to(device)
    return model, report


def load_vae(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    ops: Ops = nn,
    callbacks: Callbacks | None = None,
) -> tuple[OobleckVAE, LoadReport]:
    """The VAE from its folder, a diffusers folder, a file in diffusers' or stable-audio-tools' names, or an all-in-one
    file. Weight norm is folded. Raises CheckpointError."""
    source = open_vae(Path(path))
    with refusing(source):
        vae = OobleckVAE(source.config, ops, "meta", dtype)
    return vae, fill(vae, source, torch.device(device), dtype, callbacks or Callbacks())


def load_text_encoder(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer: str | Path | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[TextEncoder, LoadReport]:
    """The text encoder from its folder, a diffusers folder, or a ComfyUI file, with its tokenizer.

    `tokenizer`: a folder with `tokenizer.json`, or `vocab.json` and `merges.txt`; needed for a single file, which holds
    none. Raises CheckpointError.
    """
    from ..text.encoder import TextEncoder, build_qwen3, materialise_buffers
    from ..text.tokenizer import Tokenizer

    path = Path(path)
    source = open_text_encoder(path)
    words = Tokenizer.from_folder(tokenizer_folder(path, source, tokenizer))
    with refusing(source):
        module = build_qwen3(source.config, "meta", dtype)
    report = fill(module, source, torch.device(device), dtype, callbacks or Callbacks())
    materialise_buffers(module, device)
    return TextEncoder(module, words), report


def ensure_silence(model: AceStepModel, vae: OobleckVAE | None = None, callbacks: Callbacks | None = None) -> None:
    """Gives `model` a silence latent if its checkpoint had none: what `vae` makes of silence, else measured values."""
    if model.silence_latent is not None:
        return
    callbacks = callbacks or Callbacks()
    callbacks.check("encode silence")
    if vae is not None:
        weight = vae.encoder.conv1.weight
        silence, origin = encoded_silence(vae, weight.device, weight.dtype), "encoded with the VAE"
    else:
        silence, origin = tabulated_silence(), "taken from a table"
    log.info("silence latent: not in the checkpoint, %s", origin)
    model.silence_latent = silence.to(model.null_condition_emb.device)
    callbacks.report("encode silence", 1, 1)


def _named(source: NetworkSource) -> ModelConfig:
    return replace(source.config, model_version=source.variant.name, is_turbo=source.variant.is_turbo)


def tokenizer_folder(path: Path, source: Source, given: str | Path | None) -> Path:
    if given is not None:
        return Path(given)
    if is_diffusers(path):
        return path / "tokenizer"
    if source.path.is_dir():
        return source.path
    raise CheckpointError(
        f"{path} is a single file and holds no tokenizer; "
        "name a folder with tokenizer.json, or with vocab.json and merges.txt"
    )


@contextmanager
def refusing(source: Source) -> Iterator[None]:
    """Turns the complaint of a network about impossible dimensions into a CheckpointError."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError, ZeroDivisionError, AssertionError) as error:
        raise CheckpointError(f"{source.path} describes a network that cannot be built: {error}") from error


def fill(
    module: nn.Module, source: Source, device: torch.device, dtype: torch.dtype, callbacks: Callbacks
) -> LoadReport:
    """Replaces every parameter of `module`, which lies on the meta device."""
    started = time.perf_counter()
    wanted = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    _check_fit(source, wanted)
    weights = {name: source.weights[name] for name in wanted}
    sizes = {name: sum(entry.size for entry in weight.entries) for name, weight in weights.items()}
    total, done = sum(sizes.values()), 0
    stage = f"load {source.kind.value}"
    callbacks.check(stage)
    callbacks.report(stage, 0, total)
    # In the order of the file, for the sake of spinning disks. A host may call this in inference mode, which must not
    # mark the weights for ever; the threads do not inherit it.
    order = sorted(wanted, key=lambda name: (str(weights[name].value.file), weights[name].value.start))
    threads = 1 if device.type == "mps" else READERS  # Metal does not bear several
    with ThreadPoolExecutor(threads, "acestep-load") as pool, torch.inference_mode(False):
        futures = {
            pool.submit(_place, module, name, weights[name], wanted[name], dtype, device): name for name in order
        }
        try:
            for future in as_completed(futures):
                future.result()
                done += sizes[futures[future]]
                callbacks.report(stage, done, total)
                callbacks.check(stage)  # after it: a stop at the last of it counts too
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    module.eval()
    unexpected = tuple(weight.value.name for name, weight in source.weights.items() if name not in wanted)
    report = LoadReport(
        kind=source.kind,
        path=source.path,
        layout=source.layout,
        matched=len(wanted),
        unexpected=unexpected,
        dropped=source.dropped,
        without=getattr(source, "without", ()),
        size=total,
        seconds=time.perf_counter() - started,
        device=device,
        dtype=dtype,
        variant=getattr(source, "variant", None),
    )
    log.info("%s", report)
    if unexpected:
        log.warning("%s holds %d tensors that nothing uses: %s", source.path, len(unexpected), _some(unexpected))
    return report


def _check_fit(source: Source, wanted: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in wanted if name not in source.weights]
    if missing:
        count = f"{len(missing)} of the {len(wanted)} tensors"
        raise CheckpointError(f"{source.path} lacks {count} of the {source.kind.value}: {_some(missing)}")
    misshapen = [
        f"{name} is {list(shape)}, should be {list(wanted[name])}"
        for name, weight in source.weights.items()
        if name in wanted and not _fits(name, shape := weight.value.shape, wanted[name])
    ]
    if misshapen:
        count = f"{len(misshapen)} tensors of the wrong shape"
        raise CheckpointError(f"{source.path} has {count} for this {source.kind.value}: {_some(misshapen)}")


def _fits(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Same shape; but the snakes of the VAE are `[1, C, 1]` for diffusers and `[C]` for stable-audio-tools."""
    if name.endswith((".alpha", ".beta")):
        return max(shape, default=1) == max(wanted) and torch.Size(shape).numel() == torch.Size(wanted).numel()
    return shape == wanted


def _some(names: tuple[str, ...] | list[str]) -> str:
    return "; ".join(names[:_NAMED]) + ("; …" if len(names) > _NAMED else "")


def _place(
    module: nn.Module, name: str, weight: Weight, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    """Reads one tensor into its layer, which may keep it in another form."""
    parent, _, leaf = name.rpartition(".")
    owner, tensor = module.get_submodule(parent), _tensor(weight, shape, dtype, device)
    if leaf == "weight" and isinstance(owner, QuantizedLinear):
        owner.store(tensor)
    else:
        setattr(owner, leaf, nn.Parameter(tensor, requires_grad=False))


@torch.no_grad()
def _tensor(weight: Weight, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if weight.gain is None and weight.scale is None:
        return read_to(weight.value, dtype, device).reshape(shape)
    value = read(weight.value).to(torch.float32)
    if weight.gain is not None:
        value = fold_weight_norm(value, _factor(weight.gain, value))
    if weight.scale is not None:
        value = value * _factor(weight.scale, value)
    return value.to(device=device, dtype=dtype).reshape(shape)


def fold_weight_norm(direction: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """`gain · direction / ‖direction‖`, the norm over all dimensions but the first. That is the output channel of a
    convolution and the input channel of a transposed one."""
    norm = torch.linalg.vector_norm(direction, dim=tuple(range(1, direction.dim())), keepdim=True)
    return direction * (gain / norm)


@torch.no_grad()
def stable_audio_state(vae: OobleckVAE) -> dict[str, torch.Tensor]:
    """The tensors of a VAE as stable-audio-tools names and shapes them, weight norm included: what ComfyUI reads."""
    state: dict[str, torch.Tensor] = {}
    for name, tensor in vae.state_dict().items():
        name = to_stable_audio(name, len(vae.config.downsampling_ratios))
        if name.endswith(".weight"):
            state[f"{name}_g"] = torch.linalg.vector_norm(tensor.float(), dim=(1, 2), keepdim=True).to(tensor)
            state[f"{name}_v"] = tensor
        else:
            state[name] = tensor.flatten()
    return state


def _factor(entry: Entry, value: torch.Tensor) -> torch.Tensor:
    """A number for the whole tensor, or one for each slice of its first dimension, ready to multiply."""
    factor = read(entry).to(torch.float32)
    if factor.numel() == 1:
        return factor.reshape(())
    if factor.numel() == value.shape[0]:
        return factor.reshape(-1, *[1] * (value.dim() - 1))
    raise CheckpointError(
        f"{entry.file}: {entry.name} has shape {list(factor.shape)} for a tensor of {list(value.shape)}; "
        "only one scale for the tensor or one for each row is supported"
    )
