"""Write the same adapter in every dialect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from acestep_core.checkpoints.diffusers_keys import to_diffusers
from acestep_core.config import ModelConfig

from . import tiny
from .layouts import State, save

RANK, ALPHA = 4, 10.0
LINEAR = (
    "layers.0.self_attn.q_proj",
    "layers.2.cross_attn.o_proj",
    "layers.3.mlp.down_proj",
    "condition_embedder",
    "time_embed.linear_1",
    "time_embed_r.time_proj",
)
Factors = dict[str, tuple[Tensor, Tensor]]


def factors(config: ModelConfig = tiny.STANDARD, modules: tuple[str, ...] = LINEAR, seed: int = 0) -> Factors:
    """Return down [rank, in] and up [out, rank] of modules of the decoder."""
    decoder = tiny.model(config).decoder
    result = {}
    for number, name in enumerate(modules):
        rows, columns = decoder.get_submodule(name).weight.shape
        down = tiny.draw(RANK, columns, seed=seed + 2 * number)
        result[name] = (0.3 * down, 0.3 * tiny.draw(rows, RANK, seed=seed + 2 * number + 1))
    return result


def peft_folder(folder: Path, lora: Factors, **config: object) -> Path:
    state = {}
    for name, (down, up) in lora.items():
        state |= {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
    save(folder / "adapter_model.safetensors", state)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def single_file(
    file: Path,
    lora: Factors,
    name_of: Callable[[str], str],
    down: str = "lora_down.weight",
    up: str = "lora_up.weight",
    alpha: float | None = ALPHA,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a file of one tensor of alpha per module. name_of: the module's name in the file."""
    state: State = {}
    for name, (a, b) in lora.items():
        state |= {f"{name_of(name)}.{down}": a, f"{name_of(name)}.{up}": b}
        if alpha is not None:
            state[f"{name_of(name)}.alpha"] = torch.tensor(alpha)
    return save(file, state, metadata)


def to_diffusers_name(name: str) -> str:
    return "transformer." + to_diffusers(f"decoder.{name}.weight")[1].removesuffix(".weight")


def comfyui_file(file: Path, lora: Factors, **options) -> Path:
    return single_file(file, lora, lambda name: f"diffusion_model.decoder.{name}", **options)


def _underscored(prefix: str) -> Callable[[str], str]:
    return lambda name: prefix + name.replace(".", "_")


def _diffusers_file(file: Path, lora: Factors) -> Path:
    settings = {"transformer.r": RANK, "transformer.lora_alpha": ALPHA}
    metadata = {"lora_adapter_metadata": json.dumps(settings)}
    return single_file(file, lora, to_diffusers_name, "lora_A.weight", "lora_B.weight", None, metadata)


AB = ("lora_A.weight", "lora_B.weight")
DIALECTS: dict[str, Callable[[Path, Factors], Path]] = {
    "PEFT folder": lambda path, lora: peft_folder(path, lora),
    "PEFT file beside its config": lambda path, lora: peft_folder(path, lora) / "adapter_model.safetensors",
    "original trainer": lambda path, lora: peft_folder(path / "adapter", lora).parent,
    "PEFT of the whole model": lambda path, lora: peft_folder(
        path, {f"decoder.{name}": pair for name, pair in lora.items()}
    ),
    "PEFT with the adapter's name": lambda path, lora: single_file(
        path / "a.safetensors", lora, lambda name: f"base_model.model.{name}", "lora_A.default.weight",
        "lora_B.default.weight",
    ),
    "ComfyUI": lambda path, lora: comfyui_file(path / "a.safetensors", lora),
    "ComfyUI, A and B": lambda path, lora: single_file(
        path / "a.safetensors", lora, lambda name: f"diffusion_model.{name}", *AB
    ),
    "checkpoint prefix": lambda path, lora: single_file(
        path / "a.safetensors", lora, lambda name: f"model.diffusion_model.decoder.{name}"
    ),
    "PEFT names with alpha": lambda path, lora: single_file(
        path / "a.safetensors", lora, lambda name: f"base_model.model.{name}"
    ),
    "bare": lambda path, lora: single_file(path / "a.safetensors", lora, lambda name: name, *AB),
    "kohya": lambda path, lora: single_file(path / "a.safetensors", lora, _underscored("lora_unet_decoder_")),
    "kohya without decoder": lambda path, lora: single_file(path / "a.safetensors", lora, _underscored("lora_unet_")),
    "OneTrainer": lambda path, lora: single_file(path / "a.safetensors", lora, _underscored("lora_transformer_")),
    "LyCORIS": lambda path, lora: single_file(path / "a.safetensors", lora, _underscored("lycoris_")),
    "diffusers": lambda path, lora: _diffusers_file(path / "a.safetensors", lora),
    "diffusers of old": lambda path, lora: single_file(
        path / "a.safetensors", lora, to_diffusers_name, "lora.down.weight", "lora.up.weight"
    ),
    "compiled": lambda path, lora: single_file(
        path / "a.safetensors", lora, lambda name: f"base_model.model._orig_mod.{name}", *AB
    ),
    "wrapped MLP": lambda path, lora: single_file(
        path / "a.safetensors", lora, lambda name: f"base_model.model.{name.replace('mlp.', 'mlp.original_mlp.')}", *AB
    ),
}  # fmt: skip
