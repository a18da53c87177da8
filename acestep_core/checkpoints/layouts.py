"""The common form of every checkpoint layout: which stored tensors make each tensor of a network.

Layouts differ only in names. The module of each network opens its layouts as a `CheckpointSource`, from headers and
config files only. The loader knows no layout.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from math import prod
from pathlib import Path
from typing import Any, Generic

from ..errors import CheckpointError
from .catalog import Kind
from .configs import NetworkConfig, Shapes, read_config, stored_config
from .contents import describe_contents
from .gguf_header import is_gguf
from .gguf_values import check_gguf_package
from .reader import QUANTISED, READABLE, TensorEntry, TensorIndex, read_index
from .shards import weight_files


class Layout(Enum):
    """The packing of a network's tensors into files."""

    ORIGINAL = "original folder"
    DIFFUSERS = "diffusers folder"
    COMFY_SPLIT = "single file"
    COMFY_ALL_IN_ONE = "all-in-one file"
    GGUF = "GGUF file"


@dataclass(frozen=True)
class StoredWeight:
    """The stored tensors that make one parameter: a value, a weight-norm pair, or an fp8 value with its scale."""

    value: TensorEntry
    gain: TensorEntry | None = None
    scale: TensorEntry | None = None

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return sum(entry.size for entry in (self.value, self.gain, self.scale) if entry is not None)


@dataclass(frozen=True)
class CheckpointSource(Generic[NetworkConfig]):
    """A network on disk, opened but not loaded.

    weights: by the network's parameter names. dropped: names of stored tensors that no network needs.
    """

    kind: Kind
    path: Path
    layout: Layout
    config: NetworkConfig
    weights: Mapping[str, StoredWeight]
    dropped: tuple[str, ...]

    @property
    def parameters(self) -> int:
        return sum(prod(weight.value.shape) for weight in self.weights.values())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path before the errors of a model's settings."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def is_diffusers(path: Path) -> bool:
    """Return True if `path` is a folder in the diffusers layout."""
    return os.path.isdir(path) and (os.path.isfile(path / "model_index.json") or os.path.isdir(path / "transformer"))


def open_index(
    path: Path, component: str, find_prefix: Callable[[TensorIndex], str | None], expected: str
) -> tuple[Path, TensorIndex, str, dict[str, Any]]:
    """Find a network's files, its tensors and its settings.

    component: the network's folder in a diffusers folder.
    find_prefix: returns the prefix of the network's tensors.
    expected: the network's name, for the error.

    Return the path (the model folder, if `path` is a file in one), the index, the prefix and the content of
    config.json, which is a setting of a GGUF file. Raises CheckpointError if the network is not there.
    """
    if component and is_diffusers(path):
        if not os.path.isdir(path / component):
            raise CheckpointError(f"{path} is a diffusers folder without its {component}")
        path = path / component
    path = model_folder(path)
    index = read_index(path)
    prefix = find_prefix(index)
    if prefix is None:
        raise CheckpointError(f"{path} is {describe_contents(index)}; expected {expected}")
    if any(entry.dtype in QUANTISED for entry in index.entries.values()):
        check_gguf_package(path)
    return path, index, prefix, read_config(path) if os.path.isdir(path) else stored_config(index.metadata, path)


def model_folder(path: Path) -> Path:
    """Return the folder whose config.json belongs to the file `path`, or `path` itself."""
    is_inner = os.path.isfile(path) and path in weight_files(path.parent)
    return path.parent if is_inner and os.path.isfile(path.parent / "config.json") else path


def layout_of(path: Path, all_in_one: bool) -> Layout:
    if all_in_one:
        return Layout.COMFY_ALL_IN_ONE
    if is_gguf(path):
        return Layout.GGUF
    return Layout.ORIGINAL if os.path.isdir(path) else Layout.COMFY_SPLIT


def weight_shapes(weights: Mapping[str, StoredWeight]) -> Shapes:
    return {name: weight.value.shape for name, weight in weights.items()}


# --- tensors that belong together -------------------------------------------------------------------------------------


class Role(Enum):
    """The contribution of a stored tensor to a parameter."""

    VALUE = "value"  # the tensor itself; with a GAIN beside it, the direction of a weight-norm pair
    GAIN = "gain"  # weight-norm magnitude, one number per slice of dimension 0
    SCALE = "scale"  # multiplies an fp8 value
    DROPPED = "dropped"  # known, and not needed


_SUFFIXES = (
    (".parametrizations.weight.original0", Role.GAIN),
    (".parametrizations.weight.original1", Role.VALUE),
    (".weight_g", Role.GAIN),
    (".weight_v", Role.VALUE),
    (".weight_scale", Role.SCALE),
    (".scale_weight", Role.SCALE),
)
# The networks compute RoPE caches and the FSQ tables of vector-quantize-pytorch. `scaled_fp8` and `comfy_quant` are
# ComfyUI's marks that scales follow. Its input scales serve fp8 multiplication, which no network here does.
_DROPPED = re.compile(
    r"(.*\.)?rotary_emb\..*"
    r"|tokenizer\.quantizer\.(layers\..*|_levels|_basis|scales|implicit_codebook|soft_clamp_input_value)"
    r"|scaled_fp8|logit_scale"
    r"|.*\.(comfy_quant|input_scale|scale_input)"
)


_QUANTISED = ".comfy_quant"


def tensor_role(name: str) -> tuple[str, Role]:
    """Return the parameter that the stored tensor `name` (an original name) belongs to, and its role."""
    if _DROPPED.fullmatch(name):
        return name, Role.DROPPED
    for suffix, role in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix) + ".weight", role
    return name, Role.VALUE


def collect_weights(entries: Iterable[tuple[str, TensorEntry]]) -> tuple[dict[str, StoredWeight], tuple[str, ...]]:
    """Group stored tensors, given by original names, into weights. Return the weights and the dropped stored names.

    Raises CheckpointError for a tensor that occurs twice, half of a pair, and an unsupported quantisation.
    """
    parameters: dict[str, dict[Role, TensorEntry]] = {}
    dropped = []
    marked: set[str] = set()  # parameters that are quantised, by the file's own marks
    scaled = False
    for name, entry in entries:
        parameter, role = tensor_role(name)
        scaled |= role is Role.SCALE or name == "scaled_fp8"
        if role is Role.DROPPED:
            dropped.append(entry.name)
            if name.endswith(_QUANTISED):
                marked.add(name.removesuffix(_QUANTISED) + ".weight")
            continue
        roles = parameters.setdefault(parameter, {})
        if role in roles:
            raise CheckpointError(f"{entry.file} holds {parameter} twice: as {roles[role].name} and as {entry.name}")
        roles[role] = entry
    weights = {name: _stored_weight(name, roles) for name, roles in parameters.items()}
    for name, weight in weights.items():
        if weight.scale is None and (name in marked or (scaled and weight.value.dtype.startswith("F8"))):
            raise CheckpointError(
                f"{weight.value.file} stores {weight.value.name} as {weight.value.dtype} without its scale; download a "
                "complete file"
            )
    return weights, tuple(dropped)


def _stored_weight(parameter: str, roles: Mapping[Role, TensorEntry]) -> StoredWeight:
    value = roles.get(Role.VALUE)
    if value is None:
        entry = next(iter(roles.values()))
        raise CheckpointError(f"{entry.file} holds {entry.name} without the tensor {parameter} that it belongs to")
    if value.name.endswith((".weight_v", ".original1")) and Role.GAIN not in roles:
        raise CheckpointError(f"{value.file} holds half of a weight-norm pair: {value.name} without its magnitude")
    for entry in roles.values():
        if entry.dtype not in READABLE:
            raise CheckpointError(
                f"{entry.file} stores {entry.name} as {entry.dtype}, an unsupported quantised format; "
                "use bf16, fp16, fp32 or fp8"
            )
    return StoredWeight(value, roles.get(Role.GAIN), roles.get(Role.SCALE))
