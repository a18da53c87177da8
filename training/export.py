"""Write a model in the original's folder layout, in bfloat16, so that it loads like the released ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from acestep_core.config import HOP, ModelConfig, PlannerConfig, TextEncoderConfig
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE

from .styles import BEAT_FRAMES

NETWORK_FOLDER = "acestep-v15-nano"
PLANNER_FOLDER = "acestep-5Hz-lm-nano"
TEXT_FOLDER = "Qwen3-Embedding-0.6B"  # the loader finds text encoders by this name, whatever their size
FILE_LIMIT = 15_000_000  # bytes
SILENCE_FRAMES = 3000  # two minutes, after which the clocks stop
CLOCK = 0.5  # amplitude of the clocks
# In frames: one beat of each tempo. Two beats of ten tempi fill the remaining channels.
PERIODS = (*BEAT_FRAMES, *(2 * frames for frames in BEAT_FRAMES[9:19]))


def write_network(root: Path, model: AceStepModel, silence: Tensor, note: str, turbo: bool = True) -> None:
    """Write the diffusion model. `silence` `[1, frames, 64]` is stored channels first, as in the original."""
    folder = _folder(root, NETWORK_FOLDER)
    config = _network_json(model.config) | {
        "is_turbo": turbo,
        "model_version": "turbo" if turbo else "base",
        "acestep_note": note,
    }
    _write_json(folder / "config.json", config)
    _save(model, folder / "model.safetensors")
    torch.save(silence.transpose(1, 2).half().contiguous().clone(), folder / "silence_latent.pt")


def write_vae(root: Path, vae: OobleckVAE) -> None:
    """Write the autoencoder. Its weight norm must be removed already."""
    folder = _folder(root, "vae")
    _write_json(folder / "config.json", {"_class_name": "AutoencoderOobleck", **asdict(vae.config)})
    _save(vae, folder / "diffusion_pytorch_model.safetensors")


def write_text_encoder(root: Path, module: nn.Module, config: TextEncoderConfig, tokenizer: Path) -> None:
    """Write the text encoder. `tokenizer` is a folder of `training.nano_tokenizer`."""
    _write_qwen(_folder(root, TEXT_FOLDER), module, asdict(config), tokenizer)


def write_planner(root: Path, module: nn.Module, config: PlannerConfig, tokenizer: Path) -> None:
    """Write the planner. `module` is the decoder without a head, because the embedding table is the head."""
    values = asdict(config) | {"tie_word_embeddings": True}
    values.pop("audio_base")  # the loader takes this value from the tokenizer
    _write_qwen(_folder(root, PLANNER_FOLDER), module, values, tokenizer)


def _write_qwen(folder: Path, module: nn.Module, config: dict, tokenizer: Path) -> None:
    fixed = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "torch_dtype": "bfloat16",
    }
    _write_json(folder / "config.json", fixed | config)
    _save(module, folder / "model.safetensors")
    for file in sorted(tokenizer.iterdir()):
        shutil.copyfile(file, folder / file.name)


def silence_of(vae: OobleckVAE, frames: int = SILENCE_FRAMES) -> Tensor:
    """Return nano's silence latent `[1, frames, 64]`: encoded silence plus clocks.

    The released silence marks the start of a song by four unusual frames. Nano is too small to count beats from there.
    So every pair of its channels is the cosine and sine of a clock that turns once in a beat of one of the `TEMPI`, or
    once in two beats. The text says which clock to follow.
    """
    with torch.no_grad():
        encoded = vae.encode(torch.zeros(1, 2, 64 * HOP)).float()
    angle = 2 * torch.pi * torch.arange(frames)[:, None] / torch.tensor(PERIODS)
    clocks = torch.stack((angle.cos(), angle.sin()), dim=-1).flatten(1)
    return encoded[:, 32:33] + CLOCK * clocks[None, :, : encoded.shape[-1]]


def _network_json(config: ModelConfig) -> dict:
    return asdict(config) | {
        "architectures": ["AceStepConditionGenerationModel"],
        "model_type": "acestep",
        "dtype": "bfloat16",
        "layer_types": ["full_attention" if i % 2 else "sliding_attention" for i in range(config.num_hidden_layers)],
        "use_sliding_window": True,
        "fsq_input_num_quantizers": 1,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "rope_scaling": None,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    }


def _save(module: nn.Module, path: Path) -> None:
    """Write one file, or an index and as many shards as keep each file below `FILE_LIMIT`."""
    tensors = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous() for name, value in module.state_dict().items()
    }
    shards: list[dict[str, Tensor]] = [{}]
    for name, value in tensors.items():
        if sum(t.nbytes for t in shards[-1].values()) + value.nbytes > FILE_LIMIT - 200_000:  # room for the header
            shards.append({})
        shards[-1][name] = value
    if len(shards) == 1:
        _save_file(tensors, path)
        return
    table = {}
    for index, shard in enumerate(shards, 1):
        name = f"{path.stem}-{index:05d}-of-{len(shards):05d}.safetensors"
        _save_file(shard, path.with_name(name))
        table |= dict.fromkeys(shard, name)
    size = sum(t.nbytes for t in tensors.values())
    _write_json(Path(f"{path}.index.json"), {"metadata": {"total_size": size}, "weight_map": table})


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path, {"format": "pt"})
    path.chmod(0o644)


def _folder(root: Path, name: str) -> Path:
    folder = Path(root) / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
