"""Load stored weights into a network that was built on the meta device.

Names and shapes are compared before the first tensor is read, so a checkpoint that does not fit costs neither time nor
memory. Each tensor goes straight to its device and dtype: the peak of memory is the result plus one tensor.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn

from ..callbacks import Callbacks
from ..errors import CheckpointError, NonFiniteError, first_line
from .catalog import Kind
from .layouts import CheckpointSource, Layout, StoredWeight
from .network_layouts import NetworkSource
from .reader import TensorEntry, TensorReader
from .variants import Variant

log = logging.getLogger("acestep")

Network = TypeVar("Network", bound=nn.Module)
ChangesOf: TypeAlias = "Callable[[Network], Mapping[str, Callable[[torch.Tensor], torch.Tensor]]]"

# Beyond it, squares of activations overflow float32. A check of the results is not enough: where queries or keys are
# NaN, torch's attention on a CPU gives zeros, and the song plays on without them.
MAX_WEIGHT = 1e10
_CHUNK = 100_000  # values
_LISTED = 3  # names in an error


@dataclass(frozen=True)
class LoadReport:
    """The outcome of a load. Tensor names are those in the file.

    matched: number of loaded parameters.
    unexpected: stored tensors that no parameter matches and that belong to none of the network's children.
    dropped: stored tensors that are known and not needed.
    without: optional children that the checkpoint lacks.
    size: bytes in the file.
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
        amount = f"{self.size / 1e9:.2f} GB in {self.seconds:.1f} s"
        return f"{name}: {counts}, {amount}, {self.layout.value}, {self.device}, {_dtype_name(self.dtype)}"


def load_weights(
    build: Callable[[], Network],
    source: CheckpointSource[Any],
    device: torch.device | str,
    dtype: torch.dtype,
    callbacks: Callbacks | None = None,
    changes_of: ChangesOf[Network] | None = None,
) -> tuple[Network, LoadReport]:
    """Build a network and load the weights of `source` into it.

    build: returns the network on the meta device, with parameters of `dtype`. A parameter of another dtype is loaded in
        that dtype.
    changes_of: returns the changes to parameters of this network, by name. A change takes the value of the file in
        float32 and returns another, which is then cast or quantised.

    Raises CheckpointError if the network cannot be built, a tensor is missing, a shape is wrong, or a value is NaN,
    infinite or beyond MAX_WEIGHT, and NonFiniteError if a changed value is.
    """
    try:
        network = build()
    except (ValueError, RuntimeError, TypeError, ArithmeticError, AssertionError) as error:
        problem = first_line(error)
        raise CheckpointError(f"{source.path} describes a network that cannot be built: {problem}") from error
    started, device, callbacks = time.perf_counter(), torch.device(device), callbacks or Callbacks()
    parameters = dict(network.named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    _check_fit(source, shapes)
    changes = {} if changes_of is None else changes_of(network)
    weights = {name: source.weights[name] for name in shapes}
    total, done = sum(weight.size for weight in weights.values()), 0
    stage = f"load {source.kind.value}"
    callbacks.check(stage)
    callbacks.report(stage, 0, total)
    # In file order, for spinning disks. Weights loaded in a host's inference mode would remain inference tensors.
    reader = TensorReader()
    with torch.inference_mode(False), torch.no_grad():
        for name, weight in sorted(weights.items(), key=lambda item: (str(item[1].value.file), item[1].value.start)):
            change, own = changes.get(name), parameters[name].dtype
            value = _read_weight(reader, weight, own if change is None else torch.float32).reshape(shapes[name])
            if change is not None:
                value = changed_weight(name, change, value, own)
            set_parameter(network, name, value.to(device))
            done += weight.size
            callbacks.report(stage, done, total)
            callbacks.check(stage)
    network.eval()
    diffusion = source if isinstance(source, NetworkSource) else None
    report = LoadReport(
        kind=source.kind,
        path=source.path,
        layout=source.layout,
        matched=len(shapes),
        unexpected=tuple(weight.value.name for name, weight in source.weights.items() if name not in shapes),
        dropped=source.dropped,
        without=diffusion.without if diffusion else (),
        size=total,
        seconds=time.perf_counter() - started,
        device=device,
        dtype=dtype,
        variant=diffusion.variant if diffusion else None,
    )
    log.info("%s", report)
    if report.unexpected:
        log.warning("%s holds %d unused tensors: %s", source.path, len(report.unexpected), _listed(report.unexpected))
    return network, report


def _check_fit(source: CheckpointSource[Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    children = {name.partition(".")[0] for name in shapes}
    unused = [
        weight.value.name
        for name, weight in source.weights.items()
        if name not in shapes and name.partition(".")[0] in children
    ]
    if unused:
        raise CheckpointError(
            f"{source.path} holds {len(unused)} tensors that this {source.kind.value} does not use, so it is another "
            f"model: {_listed(unused)}"
        )
    missing = [name for name in shapes if name not in source.weights]
    if missing:
        count = f"{len(missing)} of the {len(shapes)} tensors"
        raise CheckpointError(f"{source.path} lacks {count} of the {source.kind.value}: {_listed(missing)}")
    misshapen = [
        f"{name} is {list(shape)}, should be {list(shapes[name])}"
        for name, weight in source.weights.items()
        if name in shapes and not _fits(name, shape := weight.value.shape, shapes[name])
    ]
    if misshapen:
        count = f"{len(misshapen)} tensors of the wrong shape"
        raise CheckpointError(f"{source.path} has {count} for this {source.kind.value}: {_listed(misshapen)}")


def _fits(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Compare shapes. The VAE's snakes are `[1, C, 1]` in diffusers and `[C]` in stable-audio-tools."""
    if name.endswith((".alpha", ".beta")):
        return max(shape, default=1) == max(expected) and torch.Size(shape).numel() == torch.Size(expected).numel()
    return shape == expected


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _listed(names: Sequence[str]) -> str:
    return "; ".join(names[:_LISTED]) + ("; …" if len(names) > _LISTED else "")


def set_parameter(network: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Replace a parameter. A layer that stores its weight in another form converts it."""
    parent, _, leaf = name.rpartition(".")
    layer = network.get_submodule(parent)
    store = getattr(layer, "store", None)  # of QuantizedLinear
    if leaf == "weight" and store is not None:
        store(tensor)
    else:
        setattr(layer, leaf, nn.Parameter(tensor, requires_grad=False))


def changed_weight(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], value: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Return the changed value of the parameter `name`, cast to `dtype`. Raises NonFiniteError."""
    changed = change(value).to(dtype)
    if not (largest := _largest(changed)) <= MAX_WEIGHT:
        raise NonFiniteError(f"adapter: {name} would become {largest:g} in {_dtype_name(dtype)}; lower the strength")
    return changed


def _read_weight(reader: TensorReader, weight: StoredWeight, dtype: torch.dtype) -> torch.Tensor:
    """Read a weight on the CPU, in `dtype`. Raises CheckpointError for NaN, infinity and numbers beyond MAX_WEIGHT."""
    value = _cast_weight(reader, weight, dtype)
    if _largest(value) <= MAX_WEIGHT:
        return value
    exact = _cast_weight(reader, weight, torch.float32)
    _check_values(weight.value, exact)
    file, name, given = weight.value.file, weight.value.name, f"{_largest(exact):g}"
    raise CheckpointError(f"{file}: {name} holds {given}, too large for {_dtype_name(dtype)}; choose bfloat16")


def _cast_weight(reader: TensorReader, weight: StoredWeight, dtype: torch.dtype) -> torch.Tensor:
    if weight.gain is None and weight.scale is None:
        return reader.read_as(weight.value, dtype)
    value = reader.read(weight.value).to(torch.float32)
    if weight.gain is not None:
        gain = _read_factor(reader, weight.gain, value)
        _check_values(weight.gain, gain)
        value = fold_weight_norm(value, gain)
    if weight.scale is not None:
        scale = _read_factor(reader, weight.scale, value)
        if not (scale.isfinite() & (scale > 0)).all():
            raise CheckpointError(f"{weight.scale.file}: {weight.scale.name} should be positive numbers, it is not")
        value = value * scale
    return value.to(dtype)


def _check_values(entry: TensorEntry, value: torch.Tensor) -> None:
    if not (largest := _largest(value)) <= MAX_WEIGHT:
        raise CheckpointError(
            f"{entry.file} is damaged: {entry.name} holds {largest:g}, weights are finite and below {MAX_WEIGHT:g}; "
            "download it again"
        )


def _largest(value: torch.Tensor) -> float:
    """Return the largest magnitude, NaN if a value is. Allocates little."""
    if value.dtype.itemsize == 1:  # torch compares no fp8; its bytes without the sign are in order, with NaN at the end
        magnitudes = [int((part & 0x7F).max()) for part in value.flatten().view(torch.uint8).split(_CHUNK)]
        return float(torch.tensor([max(magnitudes)], dtype=torch.uint8).view(value.dtype).float())
    return float(torch.stack(torch.aminmax(value)).abs().max())


def fold_weight_norm(direction: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Return `gain · direction / ‖direction‖`, with the norm over all dimensions but the first.

    The first dimension is the output channel of a convolution and the input channel of a transposed one.
    """
    norm = torch.linalg.vector_norm(direction, dim=tuple(range(1, direction.dim())), keepdim=True)
    return direction * (gain / norm)


def _read_factor(reader: TensorReader, entry: TensorEntry, value: torch.Tensor) -> torch.Tensor:
    """Read one factor for the whole tensor, or one for each slice of dimension 0, in a shape that broadcasts."""
    factor = reader.read(entry).to(torch.float32)
    if factor.numel() == 1:
        return factor.reshape(())
    if factor.numel() == value.shape[0]:
        return factor.reshape(-1, *[1] * (value.dim() - 1))
    raise CheckpointError(
        f"{entry.file}: {entry.name} has shape {list(factor.shape)} for a tensor of {list(value.shape)}; "
        "only one scale for the tensor or one for each row is supported"
    )
