"""Names, checked against the published tables and never against the code that writes test files."""

from __future__ import annotations

import pytest

from acestep_core.checkpoints.contents import NETWORK_MARKER, VAE_MARKERS
from acestep_core.checkpoints.diffusers_keys import DIFFUSERS_MARKERS, from_diffusers, to_diffusers
from acestep_core.checkpoints.layouts import Role, tensor_role
from acestep_core.checkpoints.stable_audio_keys import from_stable_audio, to_stable_audio
from tests.support import manifest


@pytest.mark.parametrize(
    ("ours", "component", "theirs"),
    [
        ("decoder.proj_in.1.weight", "transformer", "proj_in_conv.weight"),
        ("decoder.proj_out.1.bias", "transformer", "proj_out_conv.bias"),
        ("decoder.time_embed_r.linear_2.bias", "transformer", "time_embed_r.linear_2.bias"),
        ("decoder.scale_shift_table", "transformer", "scale_shift_table"),
        ("decoder.layers.11.scale_shift_table", "transformer", "layers.11.scale_shift_table"),
        ("decoder.layers.3.cross_attn.q_proj.weight", "transformer", "layers.3.cross_attn.to_q.weight"),
        ("decoder.layers.3.self_attn.o_proj.weight", "transformer", "layers.3.self_attn.to_out.0.weight"),
        ("decoder.layers.3.self_attn.k_norm.weight", "transformer", "layers.3.self_attn.norm_k.weight"),
        ("decoder.layers.3.self_attn_norm.weight", "transformer", "layers.3.self_attn_norm.weight"),
        ("encoder.text_projector.weight", "condition_encoder", "text_projector.weight"),
        (
            "encoder.lyric_encoder.layers.7.self_attn.v_proj.weight",
            "condition_encoder",
            "lyric_encoder.layers.7.self_attn.to_v.weight",
        ),
        ("null_condition_emb", "condition_encoder", "null_condition_emb"),
        ("silence_latent", "condition_encoder", "silence_latent"),
        ("tokenizer.attention_pooler.special_token", "audio_tokenizer", "attention_pooler.special_token"),
        ("tokenizer.quantizer.project_in.bias", "audio_tokenizer", "quantizer.project_in.bias"),
        (
            "detokenizer.layers.1.self_attn.q_norm.weight",
            "audio_token_detokenizer",
            "layers.1.self_attn.norm_q.weight",
        ),
        ("detokenizer.proj_out.weight", "audio_token_detokenizer", "proj_out.weight"),
    ],
)
def test_diffusers_names(ours, component, theirs):
    assert to_diffusers(ours) == (component, theirs)
    assert from_diffusers(component, theirs) == ours


@pytest.mark.parametrize("sizes", [manifest.TWO_B, manifest.XL], ids=["2B", "XL"])
def test_diffusers_names_of_every_tensor(sizes):
    names = manifest.network(sizes)
    theirs = {name: to_diffusers(name) for name in names}
    assert len(set(theirs.values())) == len(names)
    assert all(from_diffusers(*pair) == name for name, pair in theirs.items())
    assert not [name for _, name in theirs.values() if ".q_proj." in name or ".o_proj." in name or ".k_norm." in name]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("encoder.conv1.bias", "encoder.layers.0.bias"),
        ("encoder.block.0.res_unit1.snake1.alpha", "encoder.layers.1.layers.0.layers.0.alpha"),
        ("encoder.block.4.res_unit3.conv2.weight", "encoder.layers.5.layers.2.layers.3.weight"),
        ("encoder.block.2.snake1.beta", "encoder.layers.3.layers.3.beta"),
        ("encoder.block.2.conv1.weight_v", "encoder.layers.3.layers.4.weight_v"),
        ("encoder.snake1.alpha", "encoder.layers.6.alpha"),
        ("encoder.conv2.weight_g", "encoder.layers.7.weight_g"),
        ("decoder.conv1.parametrizations.weight.original0", "decoder.layers.0.parametrizations.weight.original0"),
        ("decoder.block.1.snake1.alpha", "decoder.layers.2.layers.0.alpha"),
        ("decoder.block.1.conv_t1.weight_v", "decoder.layers.2.layers.1.weight_v"),
        ("decoder.block.4.res_unit1.snake2.alpha", "decoder.layers.5.layers.2.layers.2.alpha"),
        ("decoder.block.4.res_unit3.conv1.bias", "decoder.layers.5.layers.4.layers.1.bias"),
        ("decoder.snake1.beta", "decoder.layers.6.beta"),
        ("decoder.conv2.weight", "decoder.layers.7.weight"),
    ],
)
def test_stable_audio_names(ours, theirs):
    assert from_stable_audio(theirs, 5) == ours
    assert to_stable_audio(ours, 5) == theirs


def test_stable_audio_names_of_every_tensor():
    names = manifest.vae()
    theirs = {name: to_stable_audio(name, 5) for name in names}
    assert len(set(theirs.values())) == len(names)
    for ours, name in theirs.items():
        assert from_stable_audio(name, 5) == ours
        assert from_stable_audio(ours, 5) == ours  # its own names stay
    assert from_stable_audio("decoder.layers.2.layers.9.alpha", 5) == "decoder.layers.2.layers.9.alpha"


@pytest.mark.parametrize(
    ("name", "target", "role"),
    [
        ("decoder.conv1.weight_g", "decoder.conv1.weight", Role.GAIN),
        ("decoder.conv1.weight_v", "decoder.conv1.weight", Role.VALUE),
        ("decoder.conv1.parametrizations.weight.original0", "decoder.conv1.weight", Role.GAIN),
        ("decoder.conv1.parametrizations.weight.original1", "decoder.conv1.weight", Role.VALUE),
        ("decoder.conv1.weight", "decoder.conv1.weight", Role.VALUE),
        ("decoder.layers.0.mlp.up_proj.weight_scale", "decoder.layers.0.mlp.up_proj.weight", Role.SCALE),
        ("decoder.layers.0.mlp.up_proj.scale_weight", "decoder.layers.0.mlp.up_proj.weight", Role.SCALE),
    ],
)
def test_roles(name, target, role):
    assert tensor_role(name) == (target, role)


@pytest.mark.parametrize(
    "name",
    [
        "rotary_emb.inv_freq",
        "decoder.rotary_emb.inv_freq",
        "encoder.lyric_encoder.rotary_emb.original_inv_freq",
        "tokenizer.quantizer.layers.0._levels",
        "tokenizer.quantizer.scales",
        "tokenizer.quantizer.soft_clamp_input_value",
        "scaled_fp8",
        "logit_scale",
        "decoder.layers.0.mlp.up_proj.scale_input",
        "decoder.layers.0.mlp.up_proj.comfy_quant",
    ],
)
def test_known_and_not_needed(name):
    assert tensor_role(name)[1] is Role.DROPPED


def test_no_tensor_of_a_network_is_dropped():
    for name in manifest.network(manifest.XL) | manifest.vae():
        assert tensor_role(name) == (name, Role.VALUE)


def test_markers_are_names_of_the_network():
    names = manifest.network(manifest.TWO_B)
    assert NETWORK_MARKER in names
    for component, marker in DIFFUSERS_MARKERS.items():
        assert from_diffusers(component, marker) in names
    assert {from_stable_audio(marker, 5) for marker in VAE_MARKERS} <= set(manifest.vae())
