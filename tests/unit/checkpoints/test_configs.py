from __future__ import annotations

import pytest

from acestep_core.checkpoints.configs import network_config, planner_config, text_encoder_config, vae_config
from acestep_core.config import ModelConfig, PlannerConfig, TextEncoderConfig, VAEConfig
from acestep_core.errors import CheckpointError
from tests.support import manifest

# The settings of the released config.json files that the networks' sizes or results depend on.
TWO_B = {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "layer_types": ["sliding_attention", "full_attention"] * 12,
    "sliding_window": 128, "use_sliding_window": True, "in_channels": 192, "audio_acoustic_hidden_dim": 64,
    "patch_size": 2, "pool_window_size": 5, "text_hidden_dim": 1024, "timbre_hidden_dim": 64, "timbre_fix_frame": 750,
    "num_lyric_encoder_hidden_layers": 8, "num_timbre_encoder_hidden_layers": 4,
    "num_attention_pooler_hidden_layers": 2, "num_audio_decoder_hidden_layers": 24, "fsq_dim": 2048,
    "fsq_input_levels": [8, 8, 8, 5, 5, 5], "fsq_input_num_quantizers": 1, "rope_theta": 1000000,
    "rope_scaling": None, "max_position_embeddings": 32768, "rms_norm_eps": 1e-06, "hidden_act": "silu",
    "attention_bias": False, "attention_dropout": 0.0, "vocab_size": 64003, "initializer_range": 0.02,
    "tie_word_embeddings": True, "use_cache": True, "dtype": "bfloat16", "is_turbo": True, "model_version": "turbo",
}  # fmt: skip
XL = TWO_B | {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 32, "num_attention_heads": 32,
    "layer_types": ["sliding_attention", "full_attention"] * 16, "encoder_hidden_size": 2048,
    "encoder_intermediate_size": 6144, "encoder_num_attention_heads": 16, "encoder_num_key_value_heads": 8,
}  # fmt: skip
VAE = {
    "encoder_hidden_size": 128, "decoder_channels": 128, "decoder_input_channels": 64,
    "channel_multiples": [1, 2, 4, 8, 16], "downsampling_ratios": [2, 4, 4, 6, 10], "audio_channels": 2,
    "sampling_rate": 48000,
}  # fmt: skip
QWEN3 = {
    "attention_bias": False, "attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
    "intermediate_size": 3072, "max_position_embeddings": 32768, "max_window_layers": 28, "num_attention_heads": 16,
    "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None,
    "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False,
    "vocab_size": 151669,
}  # fmt: skip


def test_the_released_diffusion_models_pass():
    assert network_config(manifest.network(manifest.TWO_B), TWO_B) == ModelConfig()
    assert network_config(manifest.network(manifest.XL), XL).is_xl
    assert network_config(manifest.network(manifest.XL), {}).num_hidden_layers == 32


def test_the_heads_that_follow_the_lyrics_are_read():
    stated = {"lyric_alignment_layers_config": {"2": [6], "3": [10, 11]}}
    config = network_config(manifest.network(manifest.TWO_B), TWO_B | stated)
    assert config.lyric_alignment_layers_config == {2: (6,), 3: (10, 11)}


@pytest.mark.parametrize("heads", [[6], "2", {"24": [6]}, {"x": [6]}, {"2": [16]}, {"2": [-1]}, {"2": 6}])
def test_unknown_heads_are_refused(heads):
    with pytest.raises(CheckpointError, match="lyric_alignment_layers_config.*below 16 .* below 24"):
        network_config(manifest.network(manifest.TWO_B), TWO_B | {"lyric_alignment_layers_config": heads})


def test_the_released_vae_passes():
    assert vae_config(manifest.vae(), VAE) == vae_config(manifest.vae(), {}) == VAEConfig()


def qwen3(rows: int, width: int, inner: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (rows, width)}
    for i in range(28):
        attention = {"q_proj": (2048, width), "k_proj": (1024, width), "q_norm": (128,)}
        shapes |= {f"layers.{i}.self_attn.{name}.weight": shape for name, shape in attention.items()}
        shapes[f"layers.{i}.mlp.gate_proj.weight"] = (inner, width)
    return shapes


@pytest.mark.parametrize(
    "types", [{}, {"layer_types": ["full_attention"] * 28, "rope_parameters": {"rope_type": "default"}}]
)
def test_the_released_qwen3_models_pass(types):
    assert text_encoder_config(qwen3(151_669, 1024, 3072), QWEN3 | types) == TextEncoderConfig()
    planner = QWEN3 | {"hidden_size": 2048, "intermediate_size": 6144, "vocab_size": 217_204} | types
    expected = PlannerConfig(max_position_embeddings=32768)
    assert planner_config(qwen3(217_204, 2048, 6144), planner) == expected


@pytest.mark.parametrize(
    "stated, flag",
    [({}, False), ({"is_lego_sft": True}, True), ({"is_lego_sft": "true"}, True), ({"is_lego_sft": "False"}, False)],
)
def test_a_model_trained_on_stems_says_so_in_its_config_or_as_a_word_in_a_files_metadata(stated, flag):
    assert network_config({}, stated).is_lego_sft is flag
