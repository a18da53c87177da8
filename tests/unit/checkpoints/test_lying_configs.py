"""A config.json that contradicts the tensors is refused before a network is built."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from acestep_core.checkpoints import weights
from acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from acestep_core.checkpoints.configs import MAX_LAYERS, network_config, text_encoder_config
from acestep_core.checkpoints.network_layouts import open_network
from acestep_core.checkpoints.qwen3_layouts import open_planner, open_text_encoder
from acestep_core.checkpoints.vae_layouts import open_vae
from acestep_core.errors import CheckpointError
from acestep_core.load import load_model
from acestep_core.planner.load_planner import load_planner_network
from tests.support import layouts, tiny, tiny_checkpoint, tiny_planner, tiny_text

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder

SHOWN_BY_TENSORS = {  # settings whose value a tensor shows
    "network": "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "encoder_hidden_size encoder_intermediate_size encoder_num_attention_heads encoder_num_key_value_heads "
    "num_lyric_encoder_hidden_layers num_timbre_encoder_hidden_layers num_attention_pooler_hidden_layers "
    "text_hidden_dim timbre_hidden_dim in_channels audio_acoustic_hidden_dim patch_size pool_window_size fsq_dim",
    "vae": "encoder_hidden_size decoder_channels decoder_input_channels channel_multiples downsampling_ratios "
    "audio_channels",
    "text_encoder": "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads head_dim",
    "planner": "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
    "head_dim",
}
OPEN = {
    "network": open_network,
    "vae": open_vae,
    "text_encoder": open_text_encoder,
    "planner": open_planner,
}
CASES = [(part, setting) for part, settings in SHOWN_BY_TENSORS.items() for setting in settings.split()]


def refused(call, *args, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_tokenizer_dir):
    root = tmp_path_factory.mktemp("models")
    network = tiny_checkpoint.write_tiny_checkpoint(root, tiny_tokenizer_dir)
    planner = tiny_planner.write_tiny_planner(root / "acestep-5Hz-lm-tiny")
    return {"network": network, "vae": root / "vae", "text_encoder": root / "Qwen3-Embedding-0.6B", "planner": planner}


@pytest.fixture
def state_config(folders):
    """Change settings of a part's config.json until the end of the test."""
    texts = {}

    def change(part: str, **settings):
        file = folders[part] / "config.json"
        texts.setdefault(file, file.read_text())
        file.write_text(json.dumps(json.loads(texts[file]) | settings))
        return folders[part]

    yield change
    for file, text in texts.items():
        file.write_text(text)


def test_configs_that_agree(folders):
    for part, open_part in OPEN.items():
        assert open_part(folders[part]).weights


@pytest.mark.parametrize(("part", "setting"), CASES)
def test_a_setting_that_the_tensors_contradict(state_config, folders, part, setting):
    honest = json.loads((folders[part] / "config.json").read_text())[setting]
    wrong = [[*honest, 2], [2] * len(honest)] if isinstance(honest, list) else [honest + 1, honest * 2, 2**31 - 1]
    for value in wrong:
        message = refused(OPEN[part], state_config(part, **{setting: value}))
        assert f"config.json: {setting} is" in message and "tensors have" in message


@pytest.mark.parametrize(("part", "setting"), CASES)
@pytest.mark.parametrize("value", [10**12, 10**400, -1, 0, 1.5, True, "4", [4], [], {}, [[4]]], ids=str)
def test_a_setting_that_is_impossible(state_config, part, setting, value):
    assert f"config.json: {setting}" in refused(OPEN[part], state_config(part, **{setting: value}))


@pytest.mark.parametrize("part", ["network", "text_encoder", "planner"])
@pytest.mark.parametrize(
    "settings",
    [
        {"rope_theta": float("inf")},
        {"rope_theta": float("nan")},
        {"rope_theta": 0.5},
        {"rope_theta": 1e30},
        {"rope_theta": "1e6"},
        {"rope_theta": [1e6]},
        {"rope_parameters": {"rope_theta": float("inf")}},
        {"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn"}},
        {"rms_norm_eps": float("inf")},
        {"rms_norm_eps": float("nan")},
        {"rms_norm_eps": 0},
        {"rms_norm_eps": 1.0},
        {"attention_bias": True},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    ],
    ids=str,
)
def test_numbers_that_give_wrong_sound(state_config, part, settings):
    assert "config.json: " in refused(OPEN[part], state_config(part, **settings))


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("network", {"sliding_window": 2**40}),
        ("network", {"timbre_fix_frame": 10**6}),
        ("network", {"is_turbo": [True]}),
        ("network", {"is_turbo": 2}),
        ("network", {"model_version": ["turbo"]}),
        ("network", {"fsq_input_levels": [8, 8, 8, 5, 5]}),
        ("network", {"fsq_input_levels": [8, 8, 8, 5, 5, 1]}),
        ("network", {"fsq_input_levels": [8, 8, 8, 5, 5, 6]}),
        ("network", {"fsq_input_levels": [8, 8, 8, 5, 5, 4.5]}),
        ("network", {"fsq_input_levels": "888555"}),
        ("text_encoder", {"use_sliding_window": True}),
        ("planner", {"max_position_embeddings": 2**40}),
        ("planner", {"audio_codes": -5}),
        ("planner", {"audio_codes": 10**9}),
        ("planner", {"audio_codes": "300"}),
        ("planner", {"audio_base": 10**9}),
    ],
    ids=str,
)
def test_other_settings_out_of_range(state_config, part, settings):
    (name,) = settings
    assert name in refused(OPEN[part], state_config(part, **settings)) or name.startswith("audio_")


def test_rope_without_scaling_may_be_spelt_out(state_config):
    plain = {"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}
    assert open_network(state_config("network", **plain)).config.rope_theta == 500
    assert open_text_encoder(state_config("text_encoder", **plain)).config.rope_theta == 500


def test_layers_are_counted(tmp_path):
    def shapes(*layers: str) -> dict[str, tuple[int, ...]]:
        return {f"layers.{i}.self_attn.q_norm.weight": (16,) for i in layers}

    assert text_encoder_config(shapes("0", "1", "2"), {}).num_hidden_layers == 3
    for numbers in (("0", "2"), ("1",), ("0", "999999999999"), ("0", "9" * 5000), ("0", "01"), ("0", "\u0661")):
        if numbers[-1] != "\u0661":
            assert "is missing" in refused(text_encoder_config, shapes(*numbers), {})
    assert text_encoder_config(shapes("0", "\u0661"), {}).num_hidden_layers == 1
    assert "512" in refused(text_encoder_config, shapes(*map(str, range(MAX_LAYERS + 1))), {})


def test_layers_that_no_tensor_shows_are_not_built():
    """Building 10 ** 9 layers would take days."""
    assert network_config({}, {"num_hidden_layers": 10**9}).num_hidden_layers == 24


def test_heads_that_cannot_share_keys(tmp_path):
    for part in ("decoder.", "encoder."):
        state = tiny.model().state_dict()
        for name, tensor in state.items():
            if name.startswith(part) and name.endswith(("k_proj.weight", "v_proj.weight")):
                state[name] = torch.zeros(3 * tiny.STANDARD.head_dim, tensor.shape[1])
        file = layouts.save(tmp_path / "model.safetensors", state)
        assert "multiple of the key heads" in refused(open_network, file)


# --- tensors that no parameter takes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "decoder.layers.0.self_attn.q_proj.bias",
        "decoder.pos_embed.weight",
        "encoder.lyric_encoder.layers.0.extra.weight",
        "tokenizer.other.weight",
        "detokenizer.layers.0.mlp.gate_proj.bias",
    ],
)
def test_a_tensor_of_the_network_that_no_parameter_takes(tmp_path, monkeypatch, name):
    monkeypatch.setattr(weights, "TensorReader", None)  # nothing is read
    state = layouts.network_state(tiny.model())
    file = layouts.save(tmp_path / "acestep_turbo.safetensors", state | {name: torch.zeros(2)})
    assert name in refused(load_network, file)


def test_a_layer_more_than_the_config_says(state_config):
    assert "num_hidden_layers is 3" in refused(load_network, state_config("network", num_hidden_layers=3))
    assert "num_hidden_layers is 1" in refused(load_text_encoder, state_config("text_encoder", num_hidden_layers=1))
    assert "num_hidden_layers is 2" in refused(load_planner_network, state_config("planner", num_hidden_layers=2))


def test_a_tensor_of_the_other_networks_that_no_parameter_takes(tmp_path, tiny_encoder, tiny_tokenizer_dir):
    state = tiny.vae().state_dict() | {"decoder.block.1.res_unit4.conv1.weight": torch.zeros(2)}
    assert "res_unit4" in refused(load_vae, layouts.save(tmp_path / "vae.safetensors", state))
    state = tiny_encoder.module.state_dict() | {"layers.1.self_attn.q_proj.bias": torch.zeros(2)}
    file = layouts.save(tmp_path / "text.safetensors", layouts.prefixed("model.", state))
    assert "q_proj.bias" in refused(load_text_encoder, file, tokenizer=tiny_tokenizer_dir)


def test_tensors_beside_the_network_are_reported(tmp_path):
    state = tiny.model().state_dict() | {"optimizer.step": torch.zeros(2)}
    _, report = load_network(layouts.save(tmp_path / "acestep_turbo.safetensors", state))
    assert report.unexpected == ("optimizer.step",)


def test_the_config_of_a_model_is_its_own():
    assert network_config({}, asdict(tiny.STANDARD) | {"num_hidden_layers": 24}).hidden_size == 48


# --- the VAE ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strides", [(1, 2, 4, 24, 10), (3, 4, 4, 4, 10), (1, 1, 1, 1, 1920), (2, 4, 4, 6, 6)], ids=str)
def test_strides_that_do_not_work(tmp_path, strides):
    """An odd stride would lose samples."""
    state = tiny.vae(replace(tiny.VAE, downsampling_ratios=strides)).state_dict()
    message = refused(open_vae, layouts.save(tmp_path / "vae.safetensors", state))
    assert "1920" in message and ("even" in message or "1152" in message)


def test_a_vae_for_other_sound(tmp_path, state_config):
    mono = tiny.vae(replace(tiny.VAE, audio_channels=1)).state_dict()
    assert "audio_channels" in refused(open_vae, layouts.save(tmp_path / "vae.safetensors", mono))
    assert "sampling_rate" in refused(open_vae, state_config("vae", sampling_rate=44100))


def test_a_vae_with_other_latents_than_the_diffusion_models(folders, tmp_path, tiny_tokenizer_dir):
    file = layouts.save(tmp_path / "vae.safetensors", tiny.vae().state_dict())
    message = refused(load_model, folders["network"], device="cpu", vae=file)
    assert message.startswith("vae: ") and "8" in message and "64" in message


@pytest.mark.parametrize("note", [["a"], {"a": 1}, 5, None, True])
def test_a_note_that_is_no_text(state_config, note):
    assert load_model(state_config("network", acestep_note=note), device="cpu").note == ""
