"""Dimensions of the networks and of their signals, as plain data.

Defaults are those of the released 2B checkpoint. `acestep_core.checkpoints` reads the values of other checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

SAMPLE_RATE = 48_000
HOP = 1920  # samples per latent frame: the product of the VAE's strides
FRAME_RATE = SAMPLE_RATE // HOP  # 25 latent frames per second
LATENT_CHANNELS = 64
FRAMES_PER_CODE = 5  # audio codes run at 5 Hz
CODE_COUNT = 64_000  # codebook size: the product of ModelConfig.fsq_input_levels
MIN_FRAMES = 128  # the original pads shorter songs with silence up to this length
MAX_SECONDS = 600
MAX_FRAMES = MAX_SECONDS * FRAME_RATE  # length of the released silence_latent: 15000

TEXT_VOCAB_SIZE = 151_669  # of Qwen3-Embedding-0.6B; also the row of audio code 0 in the planner
PLANNER_VOCAB_SIZE = 217_204  # of all three released planners: text, then 65 535 audio codes (only CODE_COUNT trained)


def samples_of(seconds: float) -> int:
    """Return the number of samples at 48 kHz, rounded."""
    return round(seconds * SAMPLE_RATE)


@dataclass(frozen=True)
class ModelConfig:
    """Dimensions of the diffusion transformer, condition encoder, audio tokenizer and detokenizer."""

    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 128

    encoder_hidden_size: int = 2048
    encoder_intermediate_size: int = 6144
    encoder_num_attention_heads: int = 16
    encoder_num_key_value_heads: int = 8
    num_lyric_encoder_hidden_layers: int = 8
    num_timbre_encoder_hidden_layers: int = 4
    num_attention_pooler_hidden_layers: int = 2  # of the tokenizer and of the detokenizer
    text_hidden_dim: int = 1024
    timbre_hidden_dim: int = 64
    timbre_fix_frame: int = 750

    in_channels: int = 192  # source 64, mask 64, noisy latent 64
    audio_acoustic_hidden_dim: int = 64
    patch_size: int = 2
    pool_window_size: int = 5
    fsq_dim: int = 2048
    fsq_input_levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)

    sliding_window: int = 128
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6

    model_version: str = "turbo"
    is_turbo: bool = True
    is_lego_sft: bool = False  # trained on stems, with another form of the caption (text.prompts.STEMS)
    # Heads of cross-attention that follow the lyrics, by layer. If empty, `lyrics.lyric_attention` has a table.
    lyric_alignment_layers_config: Mapping[int, tuple[int, ...]] = field(default_factory=dict, hash=False)

    @property
    def is_xl(self) -> bool:
        """True for an XL checkpoint: wider than its condition encoder, with a CLS row in the timbre encoder."""
        return self.hidden_size != self.encoder_hidden_size


@dataclass(frozen=True)
class VAEConfig:
    """Dimensions of the Oobleck autoencoder (`vae/config.json`, class AutoencoderOobleck)."""

    encoder_hidden_size: int = 128
    decoder_channels: int = 128
    decoder_input_channels: int = 64
    channel_multiples: tuple[int, ...] = (1, 2, 4, 8, 16)
    downsampling_ratios: tuple[int, ...] = (2, 4, 4, 6, 10)
    audio_channels: int = 2
    sampling_rate: int = SAMPLE_RATE

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        return prod(self.downsampling_ratios)


@dataclass(frozen=True)
class TextEncoderConfig:
    """Dimensions of the text encoder, Qwen3-Embedding-0.6B, a Qwen3Model of transformers."""

    vocab_size: int = TEXT_VOCAB_SIZE
    hidden_size: int = 1024
    intermediate_size: int = 3072
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 128
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 32_768
    tie_word_embeddings: bool = True


@dataclass(frozen=True)
class PlannerConfig:
    """Dimensions of the planner (5 Hz LM), by default the released 1.7B.

    audio_base: embedding row of audio code 0; code c is row `audio_base + c`.
    audio_codes: number of usable audio codes, from 0 on.
    """

    vocab_size: int = PLANNER_VOCAB_SIZE
    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 128
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 40_960
    audio_base: int = TEXT_VOCAB_SIZE
    audio_codes: int = CODE_COUNT
