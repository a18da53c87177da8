"""Sizes of the networks with which the tests run the training stages of `training/`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from acestep_core.config import ModelConfig, TextEncoderConfig, VAEConfig
from tests.support import tiny

VAE = VAEConfig(
    encoder_hidden_size=8, decoder_channels=8, decoder_input_channels=64, channel_multiples=(1, 2, 4, 8, 16)
)
TEXT = TextEncoderConfig(
    vocab_size=2048, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, head_dim=16, rope_theta=10_000.0, max_position_embeddings=4096,
)  # fmt: skip
MODEL: ModelConfig = replace(tiny.STANDARD, text_hidden_dim=32, num_hidden_layers=2)


def new_folder(path: Path) -> Path:
    """Create a folder and return it."""
    path.mkdir()
    return path
