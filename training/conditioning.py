"""Encode the text of training examples as condition rows, with gradients. `TextEncoder` is for inference only."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from acestep_core.config import TextEncoderConfig
from acestep_core.edit.tasks import Task
from acestep_core.models.condition import ConditionEncoder, stack_conditions
from acestep_core.song.song import Song
from acestep_core.text.encoder import build_qwen3
from acestep_core.text.prompts import caption_prompt, lyric_prompt
from acestep_core.text.tokenizer import Tokenizer

from . import nano_config
from .composer import compose
from .examples import texts
from .initialization import init_transformer
from .nano_tokenizer import train_nano_tokenizer
from .piece import Piece


@lru_cache(maxsize=20_000)
def piece_of(seed: int) -> Piece:
    """Return the piece without its notes, which text training does not need."""
    return replace(compose(seed), notes=())


def nano_tokenizer(folder: Path, pieces: int = 2000) -> Tokenizer:
    """Load the tokenizer in `folder`, or train one if there is none."""
    if not (folder / "tokenizer.json").exists():
        train_nano_tokenizer(texts(pieces), folder, nano_config.VOCABULARY)
    return Tokenizer.from_folder(folder)


class TextTower(nn.Module):
    """A small Qwen3, trained from scratch together with the diffusion model."""

    def __init__(self, config: TextEncoderConfig, tokenizer: Tokenizer, seed: int = 0):
        super().__init__()
        self.tokenizer = tokenizer
        self.config = replace(config, vocab_size=tokenizer.largest_id + 1)
        self.qwen = build_qwen3(self.config, "cpu")
        init_transformer(self.qwen, torch.Generator().manual_seed(seed))
        self.qwen.requires_grad_(True)

    def captions(self, songs: list[Song], tasks: list[Task]) -> list[Tensor]:
        """Return the last hidden states of each caption prompt, `[1, tokens, width]`, without padding."""
        rows = [self.tokenizer.encode_prompt(caption_prompt(s, t))[0] for s, t in zip(songs, tasks, strict=True)]
        longest = max(map(len, rows))
        device = self.qwen.get_input_embeddings().weight.device
        ids = torch.tensor([row + [self.tokenizer.end_id] * (longest - len(row)) for row in rows], device=device)
        states = self.qwen(input_ids=ids, use_cache=False).last_hidden_state
        return [states[i : i + 1, : len(row)] for i, row in enumerate(rows)]

    def lyrics(self, songs: list[Song]) -> list[Tensor]:
        """Return the embeddings of each lyric prompt, `[1, tokens, width]`."""
        table = self.qwen.get_input_embeddings()
        rows = [self.tokenizer.encode_prompt(lyric_prompt(song))[0] for song in songs]
        return [table(torch.tensor([row], device=table.weight.device)) for row in rows]


def conditions(
    encoder: ConditionEncoder, tower: TextTower, songs: list[Song], tasks: list[Task], timbre: Tensor
) -> list[Tensor]:
    """Return condition rows `[1, S_i, width]` of each song. `timbre` `[B, frames, 64]` are its reference latents."""
    timbres = encoder.timbre_encoder(timbre)[:, None]
    captions, lyrics = tower.captions(songs, tasks), tower.lyrics(songs)
    return [
        torch.cat((encoder.lyric_encoder(lyric), timbre_row[None], encoder.text_projector(caption)), dim=1)
        for lyric, timbre_row, caption in zip(lyrics, timbres, captions, strict=True)
    ]


def with_dropout(
    items: list[Tensor], null: Tensor, share: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor | None]:
    """Stack conditions and their mask. The null condition replaces a share of the items."""
    dropped = [null if rng.random() < share else item for item in items]
    return stack_conditions(dropped)
