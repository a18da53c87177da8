"""Dimensions of acestep-nano: the original architecture, scaled down to 32 MB in bfloat16."""

from __future__ import annotations

from math import prod

from acestep_core.config import ModelConfig, PlannerConfig, TextEncoderConfig, VAEConfig

LATENTS = 64
VOCABULARY = 2048  # size of nano's tokenizer, with control tokens
LEVELS = (8, 8, 8, 5)  # 2560 codes; most of the released 64 000 would stay untrained in a small planner
CODES = prod(LEVELS)
# Half of the rotary periods are between one beat and a few bars. The slowest period is 43 s (patches of 0.08 s).
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
    """Return a diffusion model's config. `encoder_layers` are of the lyric encoder, timbre encoder and tokenizer."""
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
