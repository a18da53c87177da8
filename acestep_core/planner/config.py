"""Dimensions of a planner: a Qwen3 decoder whose vocabulary goes on, after the words, with audio codes."""

from __future__ import annotations

from dataclasses import dataclass

RELEASED_ROWS = 217_204  # of the embedding of all three released planners: 151 669 of text and 65 535 of audio
RELEASED_AUDIO_BASE = 151_669  # the row of audio code 0: the rows of text come before
USABLE_CODES = 64_000  # size of the audio tokenizer's codebook; the released rows beyond it were never trained


@dataclass(frozen=True)
class PlannerConfig:
    """Defaults are the released 1.7B planner's.

    audio_base: the row of audio code 0; code c is row audio_base + c.
    audio_codes: how many audio codes are usable, from 0 on.
    """

    vocab_size: int = RELEASED_ROWS
    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 128
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 40_960
    audio_base: int = RELEASED_AUDIO_BASE
    audio_codes: int = USABLE_CODES
