"""Whatever lies where a model should: one clear sentence, before anything is loaded."""

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
from acestep_core.checkpoints import build as loading
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
    assert "holds no model.safetensors (nor shards of one); it holds readme.txt" in refused(load, tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"GGUF\x03\x00\x00\x00" + bytes(64), "is a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page"),
        (pickle.dumps({"weight": Payload()}), "is a pickle"),
        (b"PK\x03\x04" + bytes(64), "is a pickle"),
        (struct.pack("<Q", 2**60) + b"{}", "not a safetensors file, or its header is corrupt"),
        (struct.pack("<Q", 12) + b'{"a": [1, 2}', "is corrupt"),
        (struct.pack("<Q", 12) + b'{"a": "text"', "is corrupt"),
        (b"\x8fnoise\xff", "not a safetensors file"),
    ],
)
def test_foreign_file(tmp_path, content, sentence):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    message = refused(load_network, file)
    assert sentence in message and str(file) in message
    assert not os.path.exists("ran-code")


@pytest.mark.parametrize("kept", [100, 5000, -1], ids=["in the header", "in the tensors", "by one byte"])
def test_truncated(folder, kept):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    message = refused(load_network, folder)
    assert f"{file} is truncated" in message and "fetch it again" in message


def test_a_header_that_lies_about_sizes(folder):
    file = folder / "model.safetensors"
    header = {"decoder.norm_out.weight": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4]}}
    raw = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
    assert "4 bytes for shape [1000] of F32" in refused(load_network, folder)


def test_a_file_that_shrinks_while_it_is_read(folder, monkeypatch):
    from acestep_core.checkpoints import build as loading

    check = loading._check_fit
    file = folder / "model.safetensors"

    def cut(source, wanted):
        check(source, wanted)
        os.truncate(file, file.stat().st_size // 2)

    monkeypatch.setattr(loading, "_check_fit", cut)
    assert "the file ends too early" in refused(load_network, folder)


def test_missing_shard(tmp_path, model):
    folder = layouts.original(tmp_path / "sharded", model, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "lacks 1 of its 3 shards: model-00002-of-00003.safetensors" in refused(load_network, folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    assert "is not a list of shards" in refused(load_network, folder)


@pytest.mark.parametrize("name", ["../other.safetensors", "/other.safetensors", "..\\other.safetensors", 5])
def test_a_shard_outside_of_the_folder(tmp_path, name):
    index = json.dumps({"weight_map": {"weight": name}})
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert "a shard is a file in the same folder" in refused(load_network, tmp_path)


def test_only_a_pickle_of_weights(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    assert "a pickle, which could run code" in refused(load_network, tmp_path)


# --- other people's models --------------------------------------------------------------------------------------------


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
    assert "is ACE-Step 1.0, a different model" in refused(load_network, tmp_path / "ACE-Step-v1-3.5B")


def test_something_else(tmp_path):
    message = refused(load_network, other(tmp_path, "unet.a", "unet.b", "unet.c", "unet.d"))
    assert "something else: its tensors are named unet.a, unet.b, unet.c" in message
    assert "a LoRA" in refused(load_network, other(tmp_path, "decoder.layers.0.self_attn.q_proj.lora_A.weight"))
    assert "without tensors" in refused(load_network, other(tmp_path))


def test_stable_audio_vae(tmp_path):
    config = replace(tiny.VAE, downsampling_ratios=(2, 4, 4, 8, 8))
    for stable_audio in (False, True):
        state = layouts.vae_state(tiny.vae(config), layouts.pair, stable_audio)
        message = refused(load_vae, layouts.save(tmp_path / "vae.safetensors", state))
        assert "2048 samples a frame (Stable Audio's, for 44.1 kHz); ACE-Step 1.5's has 1920" in message
    whole = layouts.save(tmp_path / "model.safetensors", layouts.prefixed("pretransform.model.", state))
    assert "is a Stable Audio checkpoint, a different model" in refused(load_vae, whole)


def test_parts_in_the_wrong_place(tmp_path, folder, tiny_encoder, tiny_tokenizer_dir):
    vae = layouts.save(tmp_path / "vae.safetensors", tiny.vae().state_dict())
    text = layouts.save(tmp_path / "text.safetensors", tiny_encoder.module.state_dict())
    assert "is a VAE; wanted here: an ACE-Step 1.5 diffusion model" in refused(load_network, vae)
    assert "is a text encoder; wanted here: the ACE-Step 1.5 VAE" in refused(load_vae, text)
    message = refused(load_text_encoder, folder, tokenizer=tiny_tokenizer_dir)
    assert "is an ACE-Step 1.5 diffusion model; wanted here: the text encoder" in message


@pytest.mark.parametrize(("rows", "kind"), [(217204, "a planner LM"), (151936, "a plain Qwen3 model")])
def test_planner_as_text_encoder(tmp_path, tiny_encoder, tiny_tokenizer_dir, rows, kind):
    state = {**tiny_encoder.module.state_dict(), "embed_tokens.weight": torch.zeros(rows, 2)}
    file = layouts.save(tmp_path / "qwen_1.7b.safetensors", layouts.prefixed("model.", state))
    message = refused(load_text_encoder, file, tokenizer=tiny_tokenizer_dir)
    assert f"is {kind}: its vocabulary has {rows} rows" in message


@pytest.mark.parametrize("what", ["biases", "no norms", "more norms"])
def test_another_models_text_encoder(tmp_path, tiny_encoder, tiny_tokenizer_dir, what):
    """Qwen 2.5, Llama and Gemma have an embedding and layers, too."""
    state = dict(tiny_encoder.module.state_dict())
    if what == "no norms":
        state = {name: value for name, value in state.items() if not name.endswith(("q_norm.weight", "k_norm.weight"))}
    else:
        name = "self_attn.q_proj.bias" if what == "biases" else "pre_feedforward_layernorm.weight"
        state[f"layers.0.{name}"] = torch.zeros(2)
    file = layouts.save(tmp_path / "vl.safetensors", layouts.prefixed("model.", state))
    assert "is another language model, with" in refused(load_text_encoder, file, tokenizer=tiny_tokenizer_dir)


def test_text_encoder_without_tokenizer(tmp_path, tiny_encoder):
    file = layouts.save(tmp_path / "text.safetensors", tiny_encoder.module.state_dict())
    assert "holds no tokenizer; name a folder" in refused(load_text_encoder, file)


def test_diffusers_folder_with_a_missing_part(tmp_path, model):
    folder = layouts.diffusers(tmp_path / "diffusers", model)
    for load, part in ((load_vae, "vae"), (load_text_encoder, "text_encoder")):
        assert f"is a diffusers folder without its {part}" in refused(load, folder)
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
    assert "lacks 4 of the" in message and message.endswith(f"{names[0]}; {names[1]}; {names[2]}; …")


def test_fewer_layers_than_the_config_says(folder):
    rewrite(folder, lambda state: [state.pop(name) for name in list(state) if name.startswith("decoder.layers.3.")])
    assert "decoder.layers.3" in refused(load_network, folder)


def test_wrong_shapes(folder):
    rewrite(folder, lambda state: state.update({"decoder.proj_in.1.bias": torch.zeros(7)}))
    message = refused(load_network, folder)
    assert "has 1 tensors of the wrong shape" in message and "decoder.proj_in.1.bias is [7], should be [48]" in message


def test_half_a_weight_norm_pair(tmp_path):
    state = layouts.vae_state(tiny.vae(), layouts.pair, stable_audio=True)
    gain = state.pop("decoder.layers.0.weight_g")
    file = layouts.save(tmp_path / "vae.safetensors", state)
    assert "half of a weight-norm pair: decoder.layers.0.weight_v" in refused(load_vae, file)
    state["decoder.layers.0.weight_g"] = gain
    state.pop("decoder.layers.0.weight_v")
    assert "decoder.layers.0.weight_g without the tensor" in refused(load_vae, layouts.save(file, state))


def test_unsupported_quantisation(folder):
    name = "decoder.layers.0.mlp.up_proj.weight"
    rewrite(folder, lambda state: state.update({name: state[name].to(torch.int8)}))
    assert f"stores {name} as I8: a quantised format that is not supported" in refused(load_network, folder)


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
    """Its tensors would fit, and it would sound wrong."""
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
    assert "should hold an object of settings" in refused(load_network, folder)


def test_config_of_a_network_that_cannot_be_built(folder):
    layouts.save_config(folder, {"num_key_value_heads": 3})
    refused(load_network, folder)


def test_unknown_variant(folder):
    with pytest.raises(RequestError, match="unknown variant 'fast'; known: turbo, "):
        load_network(folder, variant="fast")


# --- silence_latent.pt ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (Payload(), "could run code"),
        ({"silence": torch.zeros(1, 64, 5)}, "should hold one tensor, it holds a dict"),
        (torch.zeros(1, 32, 5), "should have the shape [1, frames, 64], it has [1, 32, 5]"),
        (torch.zeros(1, 64, 0), "should have the shape"),
        (torch.full((1, 64, 5), float("nan")), "NaN or infinity"),
    ],
)
def test_bad_silence(folder, content, sentence):
    torch.save(content, folder / "silence_latent.pt")
    assert sentence in refused(load_network, folder)
    assert not os.path.exists("ran-code")


def test_truncated_silence(folder):
    file = folder / "silence_latent.pt"
    file.write_bytes(file.read_bytes()[:200])
    assert f"{file} cannot be read" in refused(load_network, folder)


# --- nothing stays ----------------------------------------------------------------------------------------------------


def test_a_failed_load_leaves_nothing(folder, monkeypatch):
    made = []
    build = AceStepModel.__init__

    def remember(self, *args, **options):
        build(self, *args, **options)
        made.append(weakref.ref(self))

    monkeypatch.setattr(AceStepModel, "__init__", remember)
    half_read = Callbacks(cancelled=lambda: any(parameter.device.type == "cpu" for parameter in made[0]().parameters()))
    with pytest.raises(Cancelled, match="during load"):
        load_network(folder, callbacks=half_read)
    os.truncate(folder / "silence_latent.pt", 10)
    refused(load_network, folder)
    gc.collect()
    assert len(made) == 1 and made[0]() is None


@pytest.mark.parametrize("part", ["VAE", "text encoder"])
def test_a_failed_load_of_the_other_parts_leaves_nothing(part, tmp_path, monkeypatch, tiny_encoder, tiny_tokenizer_dir):
    if part == "VAE":
        state, load, options = layouts.vae_state(tiny.vae(), layouts.pair, stable_audio=True), load_vae, {}
        module, name = loading, "OobleckVAE"
    else:
        state, load, options = tiny_encoder.module.state_dict(), load_text_encoder, {"tokenizer": tiny_tokenizer_dir}
        module, name = text_encoder, "build_qwen3"
    build, made = getattr(module, name), []

    def remember(*args, **options):
        network = build(*args, **options)
        made.append(weakref.ref(network))
        return network

    monkeypatch.setattr(module, name, remember)
    file = layouts.save(tmp_path / "part.safetensors", state)
    half_read = Callbacks(cancelled=lambda: any(weight.device.type == "cpu" for weight in made[-1]().parameters()))
    with pytest.raises(Cancelled, match=f"during load {part}"):
        load(file, callbacks=half_read, **options)
    os.truncate(file, file.stat().st_size - 10)
    assert "is truncated" in refused(load, file, **options)
    gc.collect()
    assert len(made) == 1 and made[0]() is None
