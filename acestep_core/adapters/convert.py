"""Write adapters in the forms that other programs read: a single file of ComfyUI, or a folder of PEFT."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..checkpoints.diffusers_keys import to_diffusers
from ..errors import RequestError
from ..files import atomic_write, check_output_path
from .adapter import WIDTHS, Adapter, ModuleAdapter
from .adapter_file import CONFIG, PEFT_WEIGHTS
from .factors import Difference, Factors, Hadamard, Kronecker, LowRank

_PREFIX = "diffusion_model."  # before a module's path in ComfyUI's model


def convert_adapter(adapter: Adapter, path: str | Path, header: Mapping[str, str] | None = None) -> Path:
    """Write an adapter to a single file of ComfyUI (a `.safetensors` path) or a folder of PEFT. Return the path.

    header: more entries for the header of the safetensors file.

    Raises RequestError if the path cannot be written, or the adapter has no such form.
    """
    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        content = _comfyui_file(adapter, header or {})
        check_output_path(path)
        _write(path, content)
    else:
        _write_folder(path, _peft_folder(adapter, header or {}))
    return path


# --- ComfyUI ----------------------------------------------------------------------------------------------------------


def _comfyui_file(adapter: Adapter, header: Mapping[str, str]) -> bytes:
    state: dict[str, Tensor] = {}
    for module in adapter.modules.values():
        name = _PREFIX + module.path
        state |= {f"{name}.{key}": tensor for key, tensor in _comfyui_tensors(module).items()}
    return _saved(state, {**_modelspec(adapter), **header})


def _comfyui_tensors(module: ModuleAdapter) -> dict[str, Tensor]:
    tensors = {} if module.bias is None else {"diff_b": module.bias}
    factors = module.factors
    if factors is None:
        return tensors
    rank = factors.rank
    tensors |= _factor_tensors(factors, 1.0 if rank else module.scale)
    if not isinstance(factors, Difference):
        # Readers divide alpha by the rank. Without a rank, they ignore it.
        tensors["alpha"] = torch.tensor(module.scale * rank if rank else 1.0)
    if module.magnitude is not None:
        axes = 3 if _is_convolution(module) else 2
        shape = [1, -1, *[1] * (axes - 2)] if module.by_input else [-1, *[1] * (axes - 1)]
        tensors["dora_scale"] = module.magnitude.reshape(shape)
    return tensors


def _factor_tensors(factors: Factors, scale: float) -> dict[str, Tensor]:
    """Return the tensors by their names in ComfyUI and LyCORIS. scale: of the first matrix of a LoKr without a rank."""
    if isinstance(factors, LowRank):
        core = {} if factors.core is None else {"lora_mid.weight": factors.core}
        return {"lora_up.weight": factors.up, "lora_down.weight": factors.down, **core}
    if isinstance(factors, Hadamard):
        pairs = (("hada_w1", factors.first), ("hada_w2", factors.second))
        tensors = {f"{name}_{letter}": item for name, pair in pairs for letter, item in zip("ab", pair, strict=True)}
        return tensors | dict(zip(("hada_t1", "hada_t2"), factors.cores or (), strict=False))
    if isinstance(factors, Kronecker):
        tensors = {} if factors.core is None else {"lokr_t2": factors.core}
        for name, matrices in (("lokr_w1", factors.w1), ("lokr_w2", factors.w2)):
            names = (name,) if len(matrices) == 1 else (f"{name}_a", f"{name}_b")
            tensors |= dict(zip(names, matrices, strict=True))
        if scale != 1:
            tensors["lokr_w1"] = tensors["lokr_w1"].float() * scale
        return tensors
    assert isinstance(factors, Difference)
    return {"diff": factors.values}


def _modelspec(adapter: Adapter) -> dict[str, str]:
    size = WIDTHS.get(adapter.width or 0)
    values = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"ace-step-1.5{f'-{size.lower()}' if size else ''}/lora",
        "modelspec.implementation": "https://github.com/ace-step/ACE-Step-1.5",
        "modelspec.title": adapter.name.removesuffix(".safetensors"),
    }
    return {**values, "modelspec.trigger_phrase": ", ".join(adapter.trigger)} if adapter.trigger else values


# --- PEFT -------------------------------------------------------------------------------------------------------------


def _peft_folder(adapter: Adapter, header: Mapping[str, str]) -> Mapping[str, bytes]:
    state: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    with_magnitude = {module.magnitude is not None for module in adapter.modules.values()}
    if len(with_magnitude) > 1:
        raise RequestError("lora-convert: PEFT has DoRA in all modules or in none; write a .safetensors file")
    for module in adapter.modules.values():
        factors = module.factors
        if not isinstance(factors, LowRank) or factors.core is not None or module.bias is not None or module.by_input:
            raise RequestError(
                f"lora-convert: {module.path} has a {module.kind}, and a PEFT folder can hold LoRA and DoRA by output "
                "only; write a .safetensors file"
            )
        if _is_convolution(module) != (factors.down.dim() > 2):
            raise RequestError(f"lora-convert: {module.path} is stored without its kernel; write a .safetensors file")
        if not module.path.startswith("decoder."):
            raise RequestError(f"lora-convert: {module.path} is outside of the transformer; write a .safetensors file")
        inner = module.path.removeprefix("decoder.")
        name = f"base_model.model.{inner}"
        state |= {f"{name}.lora_A.weight": factors.down, f"{name}.lora_B.weight": factors.up}
        if module.magnitude is not None:
            shape = (1, -1, 1) if _is_convolution(module) else (-1,)
            state[f"{name}.lora_magnitude_vector"] = module.magnitude.reshape(shape)
        ranks[inner], alphas[inner] = factors.rank, module.scale * factors.rank
    rank, alpha = _most_common(ranks), _most_common(alphas)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": _whole(alpha),
        # The caret keeps a name from matching the end of another one.
        "rank_pattern": {f"^{name}": value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {f"^{name}": _whole(value) for name, value in alphas.items() if value != alpha},
        "target_modules": sorted(ranks),
        "use_dora": with_magnitude == {True},
        "use_rslora": False,
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "base_model_name_or_path": None,
        "task_type": None,
    }
    text = json.dumps(config, indent=2) + "\n"
    if not config["rank_pattern"] and not config["alpha_pattern"]:
        header = {**header, "lora_adapter_metadata": _diffusers_config(config)}
    return {PEFT_WEIGHTS: _saved(state, {"format": "pt", **_modelspec(adapter), **header}), CONFIG: text.encode()}


def _diffusers_config(config: Mapping[str, Any]) -> str:
    """Return the settings for diffusers, which reads no `adapter_config.json` and would else take alpha = rank."""
    names = [to_diffusers(f"decoder.{name}.weight")[1].removesuffix(".weight") for name in config["target_modules"]]
    values = {name: config[name] for name in ("r", "lora_alpha", "use_dora", "use_rslora", "bias", "lora_dropout")}
    return json.dumps({f"transformer.{name}": value for name, value in {**values, "target_modules": names}.items()})


def _is_convolution(module: ModuleAdapter) -> bool:
    return module.path in ("decoder.proj_in.1", "decoder.proj_out.1")


def _most_common(values: Mapping[str, float]) -> float:
    given = list(values.values())
    return max(dict.fromkeys(given), key=given.count)


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value


# --- files ------------------------------------------------------------------------------------------------------------


def _saved(state: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    return save({name: tensor.contiguous().clone() for name, tensor in state.items()}, metadata)


def _write(path: Path, content: bytes) -> None:
    _or_refuse(path, lambda: _write_atomically(path, content))


def _write_atomically(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a new folder, which appears when all of them are complete."""
    if path.exists():
        raise RequestError(f"{path} exists; give the name of a new folder, or of a .safetensors file")
    check_output_path(path)
    partial = path.with_name(f".acestep-{secrets.token_hex(8)}.partial")

    def write() -> None:
        partial.mkdir()
        for name, content in files.items():
            _write_atomically(partial / name, content)
        partial.rename(path)

    try:
        _or_refuse(path, write)
    finally:
        with suppress(OSError):
            for name in files:
                (partial / name).unlink(missing_ok=True)
            partial.rmdir()


def _or_refuse(path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error
