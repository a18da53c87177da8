"""Write the same weights in every checkpoint layout and spelling."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from acestep_core.checkpoints.diffusers_keys import to_diffusers
from acestep_core.checkpoints.stable_audio_keys import to_stable_audio
from acestep_core.models.model import AceStepModel

State = dict[str, Tensor]
BLOCKS = 5  # of each half of the VAE


def save(file: Path, state: State, metadata: dict[str, str] | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, file, metadata)
    return file


def save_config(folder: Path, config: dict) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def network_state(model: AceStepModel) -> State:
    """Return the state dict with the unused tensors of real files."""
    caches = {
        "decoder.rotary_emb.inv_freq": torch.ones(4),
        "tokenizer.quantizer._levels": torch.tensor([8, 8, 8, 5, 5, 5]),
        "tokenizer.quantizer.layers.0.implicit_codebook": torch.ones(3, 6),
    }
    return model.state_dict() | caches


def original(root: Path, model: AceStepModel, shards: int = 1) -> Path:
    """Write a folder with config.json, silence_latent.pt, and one file or several with an index."""
    state = network_state(model)
    if shards == 1:
        save(root / "model.safetensors", state)
    else:
        _save_shards(root, state, shards)
    save_config(root, asdict(model.config) | {"model_type": "acestep"})
    torch.save(model.silence_latent.transpose(1, 2).contiguous(), root / "silence_latent.pt")
    return root


def _save_shards(root: Path, state: State, shards: int) -> None:
    where = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(state)}
    for file in set(where.values()):
        save(root / file, {name: tensor for name, tensor in state.items() if where[name] == file})
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def diffusers(root: Path, model: AceStepModel) -> Path:
    """Write a folder per component, with sizes only where diffusers writes them."""
    config = asdict(model.config)
    encoder = {key.removeprefix("encoder_"): value for key, value in config.items() if key.startswith("encoder_")}
    states: dict[str, State] = {}
    for name, tensor in network_state(model).items():
        component, theirs = to_diffusers(name)
        states.setdefault(component, {})[theirs] = tensor
    states["condition_encoder"]["silence_latent"] = model.silence_latent
    for component, state in states.items():
        save(root / component / "diffusion_pytorch_model.safetensors", state)
        save_config(root / component, config if component == "transformer" else config | encoder)
    (root / "model_index.json").write_text(json.dumps({"_class_name": "AceStepPipeline"}))
    return root


def comfy_split(file: Path, model: AceStepModel) -> Path:
    return save(file, network_state(model))


def all_in_one(file: Path, model: AceStepModel, vae: nn.Module, text_encoder: nn.Module) -> Path:
    state = prefixed("model.diffusion_model.", network_state(model))
    state |= prefixed("vae.", vae_state(vae, parametrized, stable_audio=True))
    state |= prefixed("text_encoders.qwen3_06b.transformer.model.", text_encoder.state_dict())
    state |= {"text_encoders.qwen3_2b.transformer.model.norm.weight": torch.ones(8)}  # such files include a planner LM
    return save(file, state)


# --- spellings of weight norm -----------------------------------------------------------------------------------------

Spelling = Callable[[str, Tensor, Tensor], State]


def pair(name: str, gain: Tensor, direction: Tensor) -> State:
    return {f"{name}_g": gain, f"{name}_v": direction}


def parametrized(name: str, gain: Tensor, direction: Tensor) -> State:
    place = name.removesuffix("weight") + "parametrizations.weight."
    return {f"{place}original0": gain, f"{place}original1": direction}


def fused(name: str, gain: Tensor, direction: Tensor) -> State:
    return {name: direction * (gain / torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True))}


def vae_state(vae: nn.Module, spelling: Spelling, stable_audio: bool) -> State:
    """Spell every kernel as a direction and an arbitrary magnitude, the same for each spelling."""
    state: State = {}
    for name, tensor in vae.state_dict().items():
        if tensor.dim() == 3 and name.endswith("weight"):
            gain = torch.linspace(0.5, 2.0, len(tensor)).reshape(-1, 1, 1)
            state |= spelling(name, gain, tensor)
        else:
            state[name] = tensor
    if not stable_audio:
        return state
    return {
        to_stable_audio(name, BLOCKS): tensor.flatten() if name.endswith(("alpha", "beta")) else tensor
        for name, tensor in state.items()
    }
