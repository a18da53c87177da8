"""Read an adapter from a file or a folder, in every dialect."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.contents import describe_contents
from ..checkpoints.reader import FLOATS, TensorEntry, TensorIndex, TensorReader, read_index
from ..errors import CheckpointError, first_line, shown
from ..files import read_text
from .adapter import Adapter, ModuleAdapter
from .factors import Difference, Factors, Hadamard, Kronecker, LowRank
from .key_names import describe_foreign, split_key, trained_name
from .module_paths import find_module_path
from .peft_config import MAX_SCALE, AdapterConfig, config_of_header, parse_config

CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
WEIGHTS = (PEFT_WEIGHTS, "lokr_weights.safetensors", "loha_weights.safetensors")
_TRIGGERS = ("modelspec.trigger_phrase", "hot_step_trigger", "custom_tag", "trigger_phrase", "trigger_words")
_MAX_TRIGGER = 200  # characters
_NUMBERS = (*FLOATS, "I64", "I32", "I16", "I8", "U8")


class ForeignAdapterError(CheckpointError):
    """An adapter of another model, or a file of another kind."""


def read_adapter(path: str | Path) -> Adapter:
    """Read an adapter: a safetensors file, or a folder of PEFT or LyCORIS. Its tensors stay in the file until used.

    Raises CheckpointError if the file is damaged, holds NaN, or holds no adapter of ACE-Step 1.5.
    """
    adapter = open_adapter(path)
    for module in adapter.modules.values():
        for tensor in stored_tensors(module):
            if not tensor.to(torch.float32).isfinite().all():
                raise CheckpointError(f"{adapter.path} holds NaN or infinity at {module.path}; its training failed")
    return adapter


def open_adapter(path: str | Path) -> Adapter:
    """Read an adapter's header, config and alphas. The other tensors are not checked for NaN."""
    file, config_file = find_adapter_files(Path(os.path.expanduser(path)))
    index = read_index(file)
    config = config_of_header(index.metadata) if config_file is None else _read_config(config_file)
    named = file.parent if file.name in WEIGHTS else file
    tensors, unmatched = _by_module(index)
    paths = {module: find_module_path(module) for module in tensors}
    if not any(paths.values()):
        raise ForeignAdapterError(f"{named} is {_describe(index)}")
    reader = TensorReader()
    modules: dict[str, ModuleAdapter] = {}
    foreign = 0
    for module, entries in tensors.items():
        resolved = paths[module]
        if resolved is None:
            foreign += 1
            unmatched += [entry.name for entry in entries.values()]
            continue
        if resolved in modules:
            raise CheckpointError(f"{named} holds {resolved} twice")
        adapted, unused = _module_adapter(resolved, module, entries, config, reader)
        unmatched += unused
        if adapted is not None:
            modules[resolved] = adapted
    if not modules:
        raise ForeignAdapterError(f"{named} is {_describe(index)}")
    return Adapter(
        name=adapter_name(named),
        path=named,
        modules=modules,
        unmatched=tuple(unmatched),
        unmatched_modules=foreign,
        trigger=_trigger(index.metadata),
        files=(file,) if config_file is None else (config_file, file),
    )


def adapter_name(path: Path) -> str:
    """Return the name of an adapter's file or folder. The original trainer names every folder `adapter`."""
    path = path.parent if path.name in WEIGHTS else path
    return path.parent.name if path.name == "adapter" and path.parent.name else path.name


def find_adapter_files(path: Path) -> tuple[Path, Path | None]:
    """Return the safetensors file of an adapter and its `adapter_config.json`, if it has one.

    path: the file, or the folder that a trainer wrote. Raises CheckpointError.
    """
    if os.path.isfile(path):
        config = path.parent / CONFIG
        return path, config if path.name == PEFT_WEIGHTS and os.path.isfile(config) else None
    if not os.path.isdir(path):
        raise CheckpointError(f"{path} does not exist")
    for folder in (path, path / "adapter"):  # the original trainer writes into a folder of this name
        config = folder / CONFIG
        file = next((folder / name for name in WEIGHTS if os.path.isfile(folder / name)), None)
        if file is not None:
            return file, config if file.name == PEFT_WEIGHTS and os.path.isfile(config) else None
    try:
        names = sorted(item.name for item in path.iterdir())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error
    if "adapter_model.bin" in names:
        raise CheckpointError(f"{path} holds adapter_model.bin, a pickle, which could run code; save it as safetensors")
    raise CheckpointError(f"{path} holds no adapter; expected {PEFT_WEIGHTS} in it, or give a .safetensors file")


def stored_tensors(module: ModuleAdapter) -> list[Tensor]:
    """Return the tensors of a module's adapter, as they are in the file."""
    values: list[object] = [module.magnitude, module.bias]
    values += [] if module.factors is None else vars(module.factors).values()
    flat = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
    return [item for item in flat if isinstance(item, Tensor)]


def _read_config(path: Path) -> AdapterConfig:
    try:
        text = read_text(path, "adapter config")
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return replace(parse_config(text, str(path)), source=CONFIG)


def _describe(index: TensorIndex) -> str:
    """Say what a file without any module of the model is."""
    keys = [key for key in index.entries if split_key(key) is not None]
    foreign = describe_foreign(index.entries) if index.entries else None
    if foreign is not None:
        return foreign
    if not keys:
        return f"{describe_contents(index)}; expected a LoRA, LoHa or LoKr adapter"
    return f"an adapter of another model: none of its {len(keys)} keys is a module of ACE-Step 1.5 ({shown(keys[0])})"


def _by_module(index: TensorIndex) -> tuple[dict[str, dict[str, TensorEntry]], list[str]]:
    """Group the tensors by module and role. Return the groups, and the keys of no known form."""
    modules: dict[str, dict[str, TensorEntry]] = {}
    unmatched = []
    for key, entry in index.entries.items():
        split = split_key(key)
        if split is None:
            unmatched.append(key)
            continue
        module, role = split
        roles = modules.setdefault(module, {})
        if role in roles:
            raise CheckpointError(f"{entry.file} holds {module} twice: as {roles[role].name} and as {key}")
        roles[role] = entry
    return modules, unmatched


def _module_adapter(
    path: str, module: str, entries: Mapping[str, TensorEntry], config: AdapterConfig, reader: TensorReader
) -> tuple[ModuleAdapter | None, list[str]]:
    """Return the adapter of one module, None without factors and bias, and the unused keys."""
    file = next(iter(entries.values())).file
    tensors = {role: _read(reader, entry, role) for role, entry in entries.items()}
    try:
        factors, used = _factors(tensors)
    except ValueError as error:
        raise CheckpointError(f"{file} is no valid adapter at {module}: {error}") from error
    alpha, source, scale = _scale(factors, module, tensors.get("alpha"), config, file)
    used |= {"alpha"}
    magnitude = tensors.get("magnitude", tensors.get("dora_scale"))
    by_input = "dora_scale" in tensors and magnitude is not None and magnitude.dim() > 1 and len(magnitude) == 1
    bias = tensors.get("diff_b")
    used |= {"magnitude" if "magnitude" in tensors else "dora_scale", "diff_b"}
    if isinstance(factors, (type(None), Difference)):
        magnitude = None
        used -= {"magnitude", "dora_scale"}
    if bias is None and "up_bias" in tensors and isinstance(factors, LowRank):
        bias = tensors["up_bias"].float() * scale
        used.add("up_bias")
    unused = [entry.name for role, entry in entries.items() if role not in used]
    if factors is None and bias is None:
        return None, [entry.name for entry in entries.values()]
    magnitude = None if magnitude is None else magnitude.flatten()
    return ModuleAdapter(path, factors, alpha, source, scale, magnitude, by_input, bias), unused


def _factors(tensors: Mapping[str, Tensor]) -> tuple[Factors | None, set[str]]:
    """Return the factors of a module and the roles that they use. Raises ValueError."""
    if {"up", "down"} <= tensors.keys():
        return LowRank(tensors["up"], tensors["down"], tensors.get("mid")), {"up", "down", "mid"}
    if tensors.keys() & {"up", "down"}:
        raise ValueError("it has one of lora_A and lora_B, not both")
    if any(role.startswith("hada") for role in tensors):
        names = [f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b")]
        cores = [name for name in ("hada_t1", "hada_t2") if name in tensors]
        if not set(names) <= tensors.keys() or len(cores) == 1:
            raise ValueError("it lacks some of the hada_* tensors")
        w1_a, w1_b, w2_a, w2_b = (tensors[name] for name in names)
        t = (tensors["hada_t1"], tensors["hada_t2"]) if cores else None
        return Hadamard((w1_a, w1_b), (w2_a, w2_b), t), {*names, *cores}
    if any(role.startswith("lokr") for role in tensors):
        first, second = _whole_or_pair(tensors, "lokr_w1"), _whole_or_pair(tensors, "lokr_w2")
        w1, w2 = (tuple(tensors[name] for name in group) for group in (first, second))
        return Kronecker(w1, w2, tensors.get("lokr_t2")), {*first, *second, "lokr_t2"}
    if "diff" in tensors:
        return Difference(tensors["diff"]), {"diff"}
    return None, set()


def _whole_or_pair(tensors: Mapping[str, Tensor], name: str) -> tuple[str, ...]:
    if name in tensors:
        return (name,)
    pair = (f"{name}_a", f"{name}_b")
    if not set(pair) <= tensors.keys():
        raise ValueError(f"it lacks {name}")
    return pair


def _scale(
    factors: Factors | None, module: str, stored: Tensor | None, config: AdapterConfig, file: Path
) -> tuple[float | None, str, float]:
    """Return alpha, its source, and the scale: alpha / rank, 1 without one of them."""
    if factors is None or isinstance(factors, Difference):
        return None, "", 1.0
    name = trained_name(module)
    rank = factors.rank or config.rank_of(name)
    if stored is not None:
        number = float(stored.to(torch.float32)) if stored.numel() == 1 else math.nan
        if not abs(number) <= MAX_SCALE:
            raise CheckpointError(f"{file}: alpha of {module} should be one number up to {MAX_SCALE:g}")
        return number, "tensor", number / rank if rank else 1.0  # trainers fold the root of rsLoRA into the tensor
    alpha, source = config.alpha_of(name)
    if alpha is None or rank is None:
        return (None if rank is None else float(rank)), "none: the rank", 1.0
    return alpha, source, alpha / (math.sqrt(rank) if config.rank_stabilized else rank)


def _read(reader: TensorReader, entry: TensorEntry, role: str) -> Tensor:
    if entry.dtype not in (_NUMBERS if role == "alpha" else FLOATS):
        raise CheckpointError(f"{entry.file} stores {entry.name} as {entry.dtype}; expected floating-point numbers")
    return reader.read(entry)


def _trigger(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the trigger words of a header, each once, on one line."""
    lines = (" ".join(metadata.get(key, "").split())[:_MAX_TRIGGER] for key in _TRIGGERS)
    return tuple(dict.fromkeys(line for line in lines if line))
