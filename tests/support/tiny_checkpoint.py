"""Write a tiny model in the original layout."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from acestep_core.config import TextEncoderConfig, VAEConfig
from acestep_core.text.encoder import build_qwen3
from tests.support import tiny
from tests.support.tiny_text import random_weights

TEXT = TextEncoderConfig(
    vocab_size=420,
    hidden_size=32,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=4096,
)
NETWORK = replace(tiny.STANDARD, text_hidden_dim=TEXT.hidden_size)
VAE = VAEConfig(encoder_hidden_size=8, decoder_channels=4, channel_multiples=(1, 1, 1, 1, 1))
NOTE = "tiny is only for tests"


def write_tiny_checkpoint(root: Path, tokenizer: Path, turbo: bool = True) -> Path:
    """Write a model into `root` and return the folder of its diffusion model."""
    name = "turbo" if turbo else "base"
    config = asdict(replace(NETWORK, is_turbo=turbo, model_version=name)) | {"acestep_note": NOTE}
    network = root / f"acestep-v15-{name}"
    _write(network, "model.safetensors", tiny.model(NETWORK), config)
    torch.save(tiny.draw(1, 64, 60, seed=1), network / "silence_latent.pt")
    _write(root / "vae", "diffusion_pytorch_model.safetensors", tiny.vae(VAE), asdict(VAE))
    text = root / "Qwen3-Embedding-0.6B"
    _write(text, "model.safetensors", random_weights(build_qwen3(TEXT, "cpu")), asdict(TEXT))
    for file in tokenizer.iterdir():
        (text / file.name).write_bytes(file.read_bytes())
    return network


def _write(folder: Path, name: str, module: torch.nn.Module, config: dict) -> None:
    folder.mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, folder / name)
    (folder / "config.json").write_text(json.dumps(config))
