"""A tiny tokenizer and text encoder."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from acestep_core.config import TextEncoderConfig
from acestep_core.text.encoder import TextEncoder, build_qwen3
from acestep_core.text.tokenizer import Tokenizer
from training.nano_tokenizer import train_nano_tokenizer

CONFIG = TextEncoderConfig(
    vocab_size=420,
    hidden_size=32,
    intermediate_size=56,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
)
WORDS = (
    "warm lo-fi piano slow night river ocean fire dancing drum bass guitar love heart "
    "caf\u00e9 na\u00efve \u65e5\u672c\u8a9e \U0001f3b5 "
    "[Verse] [Chorus] [Instrumental] # Instruction # Caption # Metas # Languages # Lyric - bpm: N/A seconds major minor"
).split()


def sentences() -> Iterator[str]:
    choose = random.Random(5)
    for _ in range(400):
        yield " ".join(choose.choice(WORDS) for _ in range(12)) + choose.choice([".", "\n", "\n\n", ", I'm"])


@pytest.fixture(scope="session")
def tiny_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny_tokenizer")
    train_nano_tokenizer(sentences(), folder, vocab_size=400)
    return folder


def random_weights(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Randomise all weights: norms around one, the others so that hidden states stay near one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = (1 + 0.2 * noise if parameter.dim() == 1 else 0.3 * noise).to(parameter.dtype)
    return module


@pytest.fixture(scope="session")
def tiny_encoder(tiny_tokenizer_dir: Path) -> TextEncoder:
    return TextEncoder(random_weights(build_qwen3(CONFIG, "cpu")), Tokenizer.from_folder(tiny_tokenizer_dir))
