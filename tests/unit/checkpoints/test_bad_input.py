"""Files and folders that are no usable model are refused with CheckpointError before anything is loaded."""

from __future__ import annotations

import gc
import json
import os
import pickle
import struct
import weakref
from dataclasses import replace

import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.checkpoints import build, weights
from acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from acestep_core.errors import Cancelled, CheckpointError, RequestError
from acestep_core.models.model import AceStepModel
from acestep_core.text import encoder as text_encoder
from tests.support import layouts, tiny, tiny_text

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder


def refused(load, *args, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(*args, **options)
    return str(caught.value)


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture
def folder(tmp_path, model):
    return layouts.original(tmp_path / "acestep-v15-turbo", model)


class Payload:
    def __reduce__(self):
        return os.system, ("touch ran-code",)


# --- files that are none ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_network, load_vae, load_text_encoder])
def test_nothing_there(tmp_path, load):
    assert "does not exist" in refused(load, tmp_path / "no")
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(load, tmp_path / "empty")
    (tmp_path / "empty" / "readme.txt").write_text("hello")
    message = refused(load, tmp_path / "empty")
    assert "no model.safetensors" in message and "readme.txt" in message


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"GGUF\x03\x00\x00\x00" + bytes(64), "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"<!DOCTYPE html><html>Not found</html>", "web page"),
        (pickle.dumps({"weight": Payload()}), "pickle"),
        (b"PK\x03\x04" + bytes(64), "pickle"),
        (struct.pack("<Q", 2**60) + b"{}", "corrupt"),
        (struct.pack("<Q", 12) + b'{"a": [1, 2}', "corrupt"),
        (struct.pack("<Q", 12) + b'{"a": "text"', "corrupt"),
        (struct.pack("<Q", 500_000) + b'{"a":' * 100_000, "corrupt"),
        (b"\x8fnoise\xff", "not a safetensors file"),
    ],
)
def test_foreign_file(tmp_path, content, word):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    message = refused(load_network, file)
    assert word in message and str(file) in message
    assert not os.path.exists("ran-code")


@pytest.mark.parametrize("length", [100, 5000, -1], ids=["in the header", "in the tensors", "by one byte"])
def test_truncated(folder, length):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    message = refused(load_network, folder)
    assert str(file) in message and "truncated" in message


def test_a_header_with_wrong_sizes(folder):
    file = folder / "model.safetensors"
    header = {"decoder.norm_out.weight": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4]}}
    raw = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
    assert "4 bytes for shape [1000] of F32" in refused(load_network, folder)


@pytest.mark.parametrize("length", [10, 5000], ids=["in the header", "in the tensors"])
def test_a_file_that_is_truncated_after_its_check(folder, monkeypatch, length):
    check, file = weights._check_fit, folder / "model.safetensors"

    def cut(source, shapes):
        check(source, shapes)
        os.truncate(file, length)

    monkeypatch.setattr(weights, "_check_fit", cut)
    assert str(file) in refused(load_network, folder)


def test_a_file_that_is_replaced_after_its_check(folder, monkeypatch):
    check, file = weights._check_fit, folder / "model.safetensors"

    def replace_file(source, shapes):
        check(source, shapes)
        state = {name: torch.zeros(3) for name in shapes}
        layouts.save(folder / "other", state).replace(file)

    monkeypatch.setattr(weights, "_check_fit", replace_file)
    assert "changed" in refused(load_network, folder)


def test_missing_shard(tmp_path, model):
    folder = layouts.original(tmp_path / "sharded", model, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "shards: model-00002-of-00003.safetensors" in refused(load_network, folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    assert "index.json" in refused(load_network, folder)


@pytest.mark.parametrize("name", ["../other.safetensors", "/other.safetensors", "..\\other.safetensors", 5])
def test_a_shard_outside_of_the_folder(tmp_path, name):
    index = json.dumps({"weight_map": {"weight": name}})
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert "same folder" in refused(load_network, tmp_path)


def test_only_a_pickle_of_weights(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    assert "pickle" in refused(load_network, tmp_path)


# --- other models -----------------------------------------------------------------------------------------------------


def other(tmp_path, *names: str):
    return layouts.save(tmp_path / "file.safetensors", {name: torch.zeros(2, 2) for name in names})


def test_ace_step_1(tmp_path):
    names = ("genre_embedder.weight", "lyric_embs.weight", "transformer_blocks.0.attn.to_q.weight")
    assert "ACE-Step 1.0 checkpoint" in refused(load_network, other(tmp_path, *names))
    names = ("model.diffusion_model.genre_embedder.weight", "vae.vocoder.head.weight")
    assert "ACE-Step 1.0 checkpoint" in refused(load_network, other(tmp_path, *names))
    assert "VAE of ACE-Step 1.0" in refused(load_vae, other(tmp_path, "vocoder.head.weight", "dcae.encoder.weight"))
    for part in ("ace_step_transformer", "music_dcae_f8c8", "music_vocoder", "umt5-base"):
        (tmp_path / "ACE-Step-v1-3.5B" / part).mkdir(parents=True)
    assert "ACE-Step 1.0" in refused(load_network, tmp_path / "ACE-Step-v1-3.5B")


def test_something_else(tmp_path):
    message = refused(load_network, other(tmp_path, "unet.a", "unet.b", "unet.c", "unet.d"))
    assert "unet.a, unet.b, unet.c" in message
    assert "LoRA" in refused(load_network, other(tmp_path, "decoder.layers.0.self_attn.q_proj.lora_A.weight"))
    assert "without tensors" in refused(load_network, other(tmp_path))


def test_stable_audio_vae(tmp_path):
    config = replace(tiny.VAE, downsampling_ratios=(2, 4, 4, 8, 8))
    for stable_audio in (False, True):
        state = layouts.vae_state(tiny.vae(config), layouts.pair, stable_audio)
        message = refused(load_vae, layouts.save(tmp_path / "vae.safetensors", state))
        assert "2048" in message and "Stable Audio" in message and "1920" in message
    whole = layouts.save(tmp_path / "model.safetensors", layouts.prefixed("pretransform.model.", state))
    assert "Stable Audio checkpoint" in refused(load_vae, whole)


def test_parts_in_the_wrong_place(tmp_path, folder, tiny_encoder, tiny_tokenizer_dir):
    vae = layouts.save(tmp_path / "vae.safetensors", tiny.vae().state_dict())
    text = layouts.save(tmp_path / "text.safetensors", tiny_encoder.module.state_dict())
    assert "is a VAE; expected an ACE-Step 1.5 diffusion model" in refused(load_network, vae)
    assert "is a text encoder; expected the ACE-Step 1.5 VAE" in refused(load_vae, text)
    message = refused(load_text_encoder, folder, tokenizer=tiny_tokenizer_dir)
    assert "is an ACE-Step 1.5 diffusion model; expected the text encoder" in message


@pytest.mark.parametrize(("rows", "kind"), [(217204, "planner LM"), (151936, "plain Qwen3")])
def test_planner_as_text_encoder(tmp_path, tiny_encoder, tiny_tokenizer_dir, rows, kind):
    state = {**tiny_encoder.module.state_dict(), "embed_tokens.weight": torch.zeros(rows, 2)}
    file = layouts.save(tmp_path / "qwen_1.7b.safetensors", layouts.prefixed("model.", state))
    message = refused(load_text_encoder, file, tokenizer=tiny_tokenizer_dir)
    assert kind in message and str(rows) in message


@pytest.mark.parametrize("what", ["biases", "no norms", "more norms"])
def test_another_models_text_encoder(tmp_path, tiny_encoder, tiny_tokenizer_dir, what):
    """Qwen 2.5, Llama and Gemma have an embedding and layers as well."""
    state = dict(tiny_encoder.module.state_dict())
    if what == "no norms":
        state = {name: value for name, value in state.items() if not name.endswith(("q_norm.weight", "k_norm.weight"))}
    else:
        name = "self_attn.q_proj.bias" if what == "biases" else "pre_feedforward_layernorm.weight"
        state[f"layers.0.{name}"] = torch.zeros(2)
    file = layouts.save(tmp_path / "vl.safetensors", layouts.prefixed("model.", state))
    assert "another language model" in refused(load_text_encoder, file, tokenizer=tiny_tokenizer_dir)


def test_text_encoder_without_tokenizer(tmp_path, tiny_encoder):
    file = layouts.save(tmp_path / "text.safetensors", tiny_encoder.module.state_dict())
    assert "tokenizer.json" in refused(load_text_encoder, file)


def test_diffusers_folder_with_a_missing_part(tmp_path, model):
    folder = layouts.diffusers(tmp_path / "diffusers", model)
    for load, part in ((load_vae, "vae"), (load_text_encoder, "text_encoder")):
        assert f"without its {part}" in refused(load, folder)
    assert "only the transformer of a diffusers folder" in refused(load_network, folder / "transformer")
    (folder / "condition_encoder").rename(tmp_path / "elsewhere")
    assert "without its condition_encoder" in refused(load_network, folder)


# --- the right model, but damaged -------------------------------------------------------------------------------------


def rewrite(folder, change) -> None:
    state = layouts.network_state(tiny.model())
    change(state)
    layouts.save(folder / "model.safetensors", state)


def test_missing_tensors(folder):
    names = [f"decoder.layers.{i}.mlp.up_proj.weight" for i in range(4)]
    rewrite(folder, lambda state: [state.pop(name) for name in names])
    message = refused(load_network, folder)
    assert "lacks 4 of the" in message and names[2] in message and names[3] not in message


def test_fewer_layers_than_the_config_says(folder):
    rewrite(folder, lambda state: [state.pop(name) for name in list(state) if name.startswith("decoder.layers.3.")])
    assert "num_hidden_layers is 4, but the tensors have 3" in refused(load_network, folder)


def test_wrong_shapes(folder):
    rewrite(folder, lambda state: state.update({"decoder.proj_in.1.bias": torch.zeros(7)}))
    message = refused(load_network, folder)
    assert "shape" in message and "decoder.proj_in.1.bias is [7], should be [48]" in message


def test_half_a_weight_norm_pair(tmp_path):
    state = layouts.vae_state(tiny.vae(), layouts.pair, stable_audio=True)
    gain = state.pop("decoder.layers.0.weight_g")
    file = layouts.save(tmp_path / "vae.safetensors", state)
    assert "decoder.layers.0.weight_v without" in refused(load_vae, file)
    state["decoder.layers.0.weight_g"] = gain
    state.pop("decoder.layers.0.weight_v")
    assert "decoder.layers.0.weight_g without" in refused(load_vae, layouts.save(file, state))


def test_unsupported_quantisation(folder):
    name = "decoder.layers.0.mlp.up_proj.weight"
    rewrite(folder, lambda state: state.update({name: state[name].to(torch.int8)}))
    message = refused(load_network, folder)
    assert name in message and "I8" in message


def test_a_tensor_that_is_there_twice(folder):
    state = layouts.network_state(tiny.model())
    name = "decoder.layers.0.mlp.up_proj.weight"
    layouts.save(folder / "model.safetensors", state | {name + "_v": state[name], name + "_g": state[name][:, :1]})
    message = refused(load_network, folder)
    assert "twice" in message and name in message


@pytest.mark.parametrize(
    ("setting", "value"), [("hidden_size", -4), ("hidden_size", "wide"), ("head_dim", 2.5), ("fsq_input_levels", 7)]
)
def test_impossible_config(folder, setting, value):
    layouts.save_config(folder, {setting: value})
    assert f"config.json: {setting} should be" in refused(load_network, folder)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("use_sliding_window", False),
        ("layer_types", ["full_attention"] * 4),
        ("rope_scaling", {"type": "yarn", "factor": 4.0}),
        ("attention_bias", True),
        ("fsq_input_num_quantizers", 2),
    ],
)
def test_another_architecture_under_the_same_names(folder, setting, value):
    """Its tensors would fit, and the song would be wrong."""
    layouts.save_config(folder, {setting: value})
    assert f"config.json: {setting} is" in refused(load_network, folder)


def test_the_released_architecture_spelt_out(folder):
    layer_types = ["sliding_attention", "full_attention"] * 2
    stated = {"use_sliding_window": True, "rope_scaling": None, "attention_bias": False, "layer_types": layer_types}
    layouts.save_config(folder, stated | {"fsq_input_num_quantizers": 1, "hidden_act": "silu"})
    load_network(folder)


def test_unreadable_config(folder):
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read" in refused(load_network, folder)
    (folder / "config.json").write_text("[1]")
    assert "list" in refused(load_network, folder)


def test_config_of_a_network_that_cannot_be_built(folder):
    layouts.save_config(folder, {"num_key_value_heads": 3})
    refused(load_network, folder)


def test_unknown_variant(folder):
    with pytest.raises(RequestError, match="variant 'fast'.*turbo"):
        load_network(folder, variant="fast")


# --- silence_latent.pt ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (Payload(), "could run code"),
        ({"silence": torch.zeros(1, 64, 5)}, "dict"),
        (torch.zeros(1, 32, 5), "[1, 32, 5]"),
        (torch.zeros(1, 64, 0), "shape"),
        (torch.full((1, 64, 5), float("nan")), "NaN"),
    ],
)
def test_bad_silence(folder, content, word):
    torch.save(content, folder / "silence_latent.pt")
    assert word in refused(load_network, folder)
    assert not os.path.exists("ran-code")


def test_truncated_silence(folder):
    file = folder / "silence_latent.pt"
    file.write_bytes(file.read_bytes()[:200])
    assert f"{file} cannot be read" in refused(load_network, folder)


# --- a failed load frees its network --------------------------------------------------------------------------------


def test_a_failed_load_frees_its_network(folder, monkeypatch):
    networks = []
    init = AceStepModel.__init__

    def remember(self, *args, **options):
        init(self, *args, **options)
        networks.append(weakref.ref(self))

    def started() -> bool:
        return any(parameter.device.type == "cpu" for parameter in networks[0]().parameters())

    monkeypatch.setattr(AceStepModel, "__init__", remember)
    with pytest.raises(Cancelled, match="load"):
        load_network(folder, callbacks=Callbacks(cancelled=started))
    os.truncate(folder / "silence_latent.pt", 10)
    refused(load_network, folder)
    gc.collect()
    assert len(networks) == 1 and networks[0]() is None


@pytest.mark.parametrize("part", ["VAE", "text encoder"])
def test_a_failed_load_of_the_other_parts_frees_them(part, tmp_path, monkeypatch, tiny_encoder, tiny_tokenizer_dir):
    if part == "VAE":
        state, load, options = layouts.vae_state(tiny.vae(), layouts.pair, stable_audio=True), load_vae, {}
        module, name = build, "OobleckVAE"
    else:
        state, load, options = tiny_encoder.module.state_dict(), load_text_encoder, {"tokenizer": tiny_tokenizer_dir}
        module, name = text_encoder, "build_qwen3"
    construct, networks = getattr(module, name), []

    def remember(*args, **options):
        network = construct(*args, **options)
        networks.append(weakref.ref(network))
        return network

    def started() -> bool:
        return any(weight.device.type == "cpu" for weight in networks[-1]().parameters())

    monkeypatch.setattr(module, name, remember)
    file = layouts.save(tmp_path / "part.safetensors", state)
    with pytest.raises(Cancelled, match=f"load {part}"):
        load(file, callbacks=Callbacks(cancelled=started), **options)
    os.truncate(file, file.stat().st_size - 10)
    assert "truncated" in refused(load, file, **options)
    gc.collect()
    assert len(networks) == 1 and networks[0]() is None
