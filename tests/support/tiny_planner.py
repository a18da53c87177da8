"""A planner small enough for tests: the tiny tokenizer's vocabulary, 300 audio codes of which a few rows are unused."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import acestep_core
from acestep_core.config import PlannerConfig
from acestep_core.planner.network import PlannerNetwork
from acestep_core.planner.vocabulary import Vocabulary
from acestep_core.text.tokenizer import Tokenizer

from .tiny import randomise

CODES, UNUSED_ROWS = 300, 7
TERSE = 2  # how much stronger the ends of lines and turns are felt, so that texts stay short
CONTEXT = 960  # of the one that is written to files: random weights do not know when a song is over
WORDS = Path(acestep_core.__file__).parent / "nano" / "Qwen3-Embedding-0.6B"
CONFIG = PlannerConfig(
    hidden_size=32,
    intermediate_size=56,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=2048,
    audio_codes=CODES,
)


def config_of(vocabulary: Vocabulary) -> PlannerConfig:
    rows = vocabulary.audio_base + CODES + UNUSED_ROWS
    return replace(CONFIG, vocab_size=rows, audio_base=vocabulary.audio_base)


def network(config: PlannerConfig, seed: int = 0, **made) -> PlannerNetwork:
    """Random weights whose embeddings are near one, so that logits over the same table spread over several units."""
    return randomise(PlannerNetwork(config, **made), seed, gain=1.0)


@pytest.fixture(scope="session")
def vocabulary(tiny_tokenizer_dir: Path) -> Vocabulary:
    return Vocabulary.of(Tokenizer.from_folder(tiny_tokenizer_dir), codes=CODES)


@pytest.fixture(scope="session")
def planner(vocabulary: Vocabulary) -> PlannerNetwork:
    return network(config_of(vocabulary))


def write_tiny_planner(folder: Path, codes: int = CODES, seed: int = 0) -> Path:
    """Makes `folder` that of a planner, as a released one is, with random weights and nano's words."""
    words = Vocabulary.of(Tokenizer.from_folder(WORDS), codes=codes)
    config = replace(CONFIG, vocab_size=words.audio_base + codes, audio_base=words.audio_base, audio_codes=codes)
    made = network(replace(config, max_position_embeddings=CONTEXT), seed)
    with torch.no_grad():
        made.embed_tokens.weight[[*words.encode("\n"), words.turn_end]] *= TERSE
    _write(folder, made.state_dict(), asdict(made.config))
    for file in WORDS.iterdir():
        if "tokenizer" in file.name:
            shutil.copy(file, folder)
    return folder


def write_qwen3(folder: Path, rows: int) -> Path:
    """Makes `folder` that of some other Qwen3 model, which only its vocabulary tells from a planner."""
    config = PlannerConfig(
        vocab_size=rows, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=4,
    )  # fmt: skip
    _write(folder, PlannerNetwork(config).state_dict(), {})
    return folder


def _write(folder: Path, state: dict[str, torch.Tensor], config: dict) -> None:
    folder.mkdir(parents=True)
    save_file({f"model.{name}": tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
