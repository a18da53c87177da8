"""Dimensions of acestep-nano: the original's architecture, scaled down until all of it fits 32 MB in bfloat16."""

from __future__ import annotations

from math import prod

from acestep_core.config import ModelConfig, PlannerConfig, TextEncoderConfig, VAEConfig

LATENTS = 64
VOCABULARY = 2048  # of the nano tokenizer, control tokens included
LEVELS = (8, 8, 8, 5)  # 2560 codes: the released 64 000 would fill a small planner with rows it never learns
CODES = prod(LEVELS)
# Half of the rotary frequencies turn once within a beat to a few bars (patches of 0.08 s): what rhythm is made of. The
# slowest turns once in 43 s.
ROPE_THETA = 100.0

VAE = VAEConfig(encoder_hidden_size=16, decoder_channels=16, decoder_input_channels=LATENTS)


def text_encoder(hidden: int, layers: int) -> TextEncoderConfig:
    return TextEncoderConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        rope_theta=10_000.0,
        max_position_embeddings=4096,
    )


def diffusion(
    hidden: int, layers: int, text_hidden: int, encoder_layers: tuple[int, int, int] = (2, 2, 1)
) -> ModelConfig:
    """`encoder_layers`: of the lyric encoder, the timbre encoder, the tokenizer and detokenizer."""
    lyric, timbre, pooler = encoder_layers
    head = 64 if hidden >= 256 else 32
    return ModelConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 5 // 2,
        num_hidden_layers=layers,
        num_attention_heads=hidden // head,
        num_key_value_heads=max(1, hidden // head // 2),
        head_dim=head,
        encoder_hidden_size=hidden,
        encoder_intermediate_size=2 * hidden,
        encoder_num_attention_heads=hidden // head,
        encoder_num_key_value_heads=max(1, hidden // head // 2),
        num_lyric_encoder_hidden_layers=lyric,
        num_timbre_encoder_hidden_layers=timbre,
        num_attention_pooler_hidden_layers=pooler,
        text_hidden_dim=text_hidden,
        fsq_dim=hidden,
        fsq_input_levels=LEVELS,
        timbre_fix_frame=250,
        rope_theta=ROPE_THETA,
    )


TEXT = text_encoder(hidden=128, layers=2)
MODEL = diffusion(hidden=256, layers=6, text_hidden=128, encoder_layers=(1, 1, 1))
PLANNER = PlannerConfig(
    vocab_size=VOCABULARY + CODES,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=5,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=32,
    rope_theta=10_000.0,
    max_position_embeddings=8192,
    audio_base=VOCABULARY,
    audio_codes=CODES,
)

# The placeholder that ships until training is done: same family, a few megabytes.
RANDOM_VAE = VAEConfig(encoder_hidden_size=8, decoder_channels=8, decoder_input_channels=LATENTS)
RANDOM_TEXT = text_encoder(hidden=64, layers=2)
RANDOM_MODEL = diffusion(hidden=96, layers=4, text_hidden=64, encoder_layers=(2, 2, 1))
