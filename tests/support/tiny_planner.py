"""A tiny planner: the tiny tokenizer, 300 audio codes, a few unused rows. Also a fake of its decoding."""

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
from acestep_core.planner import planning, writing
from acestep_core.planner.decode_batch import CodeRow, TextRow
from acestep_core.planner.network import PlannerNetwork
from acestep_core.planner.token_sampling import TokenSampling
from acestep_core.planner.vocabulary import Vocabulary
from acestep_core.text.tokenizer import Tokenizer

from .tiny import randomise

CODES, UNUSED_ROWS = 300, 7
END_SCALE = 2  # scales the embeddings of line ends and turn ends, so that texts stay short
CONTEXT = 960  # of the planner in files: random weights seldom end a song
NANO_TOKENIZER = Path(acestep_core.__file__).parent / "nano" / "Qwen3-Embedding-0.6B"
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


def network(config: PlannerConfig, seed: int = 0, **options) -> PlannerNetwork:
    """Return random weights. Embeddings near one spread the logits over several units."""
    return randomise(PlannerNetwork(config, **options), seed, gain=1.0)


@pytest.fixture(scope="session")
def vocabulary(tiny_tokenizer_dir: Path) -> Vocabulary:
    return Vocabulary.of(Tokenizer.from_folder(tiny_tokenizer_dir), codes=CODES)


@pytest.fixture(scope="session")
def planner(vocabulary: Vocabulary) -> PlannerNetwork:
    return network(config_of(vocabulary))


class FakeDecoder:
    """Replaces `generate_tokens`: records rows and sampling, and returns prepared answers."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.rows: list[CodeRow | TextRow] = []
        self.sampling: list[TokenSampling] = []
        self.answers: list[list[int]] = []

    def prepare(self, block: str, lyrics: str | None = None) -> None:
        """Add an answer of text."""
        vocabulary = self.vocabulary
        rest = [] if lyrics is None else vocabulary.encode(f"\n\n{lyrics}")
        self.answers.append([vocabulary.think, *vocabulary.encode(f"\n{block}\n"), vocabulary.think_end, *rest])

    def __call__(self, planner, rows, sampling, *_) -> list[list[int]]:
        self.rows += rows
        self.sampling.append(sampling)
        return [self.answers.pop(0) for _ in rows]

    def prompt(self, i: int = 0) -> str:
        """Return a prompt as text, without control tokens and codes."""
        return self.vocabulary.decode(self.rows[i].prompt)


@pytest.fixture
def fake_decoder(monkeypatch, vocabulary) -> FakeDecoder:
    fake = FakeDecoder(vocabulary)
    for module in (planning, writing):
        monkeypatch.setattr(module, "generate_tokens", fake)
    return fake


def write_tiny_planner(folder: Path, codes: int = CODES, seed: int = 0) -> Path:
    """Write a planner folder like a released one, with random weights and nano's tokenizer."""
    vocabulary = Vocabulary.of(Tokenizer.from_folder(NANO_TOKENIZER), codes=codes)
    config = replace(
        CONFIG, vocab_size=vocabulary.audio_base + codes, audio_base=vocabulary.audio_base, audio_codes=codes
    )
    planner = network(replace(config, max_position_embeddings=CONTEXT), seed)
    with torch.no_grad():
        planner.embed_tokens.weight[[*vocabulary.encode("\n"), vocabulary.turn_end]] *= END_SCALE
    _write(folder, planner.state_dict(), asdict(planner.config))
    for file in NANO_TOKENIZER.iterdir():
        if "tokenizer" in file.name:
            shutil.copy(file, folder)
    return folder


def write_qwen3(folder: Path, rows: int) -> Path:
    """Write the folder of another Qwen3 model. Only the size of its vocabulary differs from a planner's."""
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
