"""Every layout and spelling of the same weights becomes the same network, bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from acestep_core.checkpoints.diffusers_keys import DIFFUSERS_COMPONENTS
from acestep_core.checkpoints.layouts import Layout
from acestep_core.checkpoints.network_layouts import open_network
from acestep_core.checkpoints.weights import fold_weight_norm
from acestep_core.text.encoder import TextEncoder
from tests.support import layouts, tiny, tiny_text

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder


def assert_same(network: torch.nn.Module, expected: dict[str, torch.Tensor]) -> None:
    state = network.state_dict()
    assert state.keys() == expected.keys()
    different = [name for name, tensor in state.items() if not torch.equal(tensor, expected[name])]
    assert not different


@pytest.fixture(scope="module", params=[tiny.STANDARD, tiny.XL, tiny.MANY_HEADS], ids=["2B", "XL", "heads"])
def model(request):
    return tiny.model(request.param)


@pytest.fixture(scope="module")
def vae():
    return tiny.vae(replace(tiny.VAE, encoder_hidden_size=16, decoder_input_channels=8))


NETWORK_LAYOUTS = {
    "original": (lambda path, model: layouts.original(path, model), Layout.ORIGINAL),
    "sharded": (lambda path, model: layouts.original(path, model, shards=3), Layout.ORIGINAL),
    "diffusers": (layouts.diffusers, Layout.DIFFUSERS),
    "split": (lambda path, model: layouts.comfy_split(path.with_suffix(".safetensors"), model), Layout.COMFY_SPLIT),
}


@pytest.mark.parametrize("layout", NETWORK_LAYOUTS)
def test_network(tmp_path, model, layout):
    write, kind = NETWORK_LAYOUTS[layout]
    loaded, report = load_network(write(tmp_path / "acestep-v15-turbo", model))
    assert_same(loaded, model.state_dict())
    assert (report.layout, report.matched, report.unexpected) == (kind, len(model.state_dict()), ())
    assert len(report.dropped) == 3  # the caches of layouts.network_state
    if layout == "split":  # which carries neither settings nor silence
        assert loaded.silence_latent is None
    else:
        assert torch.equal(loaded.silence_latent, model.silence_latent)
        assert replace(loaded.config, model_version="", is_turbo=True) == replace(model.config, model_version="")


def test_sizes_come_from_the_shapes_of_a_single_file(tmp_path, model):
    loaded, _ = load_network(layouts.comfy_split(tmp_path / "acestep_turbo.safetensors", model))
    unstated = {"sliding_window": model.config.sliding_window, "timbre_fix_frame": model.config.timbre_fix_frame}
    assert replace(loaded.config, model_version="", **unstated) == replace(model.config, model_version="")


def test_a_diffusers_folder_that_diffusers_wrote(tmp_path, model):
    from tests.parity import diffusers_maps

    diffusers_maps.transformer(model).save_pretrained(tmp_path / "transformer", max_shard_size="100KB")
    diffusers_maps.condition_encoder(model).save_pretrained(tmp_path / "condition_encoder")
    diffusers_maps.audio_tokenizer(model).save_pretrained(tmp_path / "audio_tokenizer")
    diffusers_maps.detokenizer(model).save_pretrained(tmp_path / "audio_token_detokenizer")
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 1
    loaded, report = load_network(tmp_path)
    assert_same(loaded, model.state_dict())
    assert report.dropped == report.unexpected == ()
    assert torch.equal(loaded.silence_latent, model.silence_latent)
    assert loaded.config.sliding_window == model.config.sliding_window


@pytest.mark.parametrize("shard_size", ["100KB", "1GB"], ids=["shards", "one file"])
@pytest.mark.parametrize("index", [True, False], ids=["index", "no index"])
def test_a_variant_of_a_diffusers_folder_that_diffusers_wrote(tmp_path, model, vae, shard_size, index):
    from tests.parity import diffusers_maps

    for component, network in {
        "transformer": diffusers_maps.transformer(model),
        "condition_encoder": diffusers_maps.condition_encoder(model),
        "audio_tokenizer": diffusers_maps.audio_tokenizer(model),
        "audio_token_detokenizer": diffusers_maps.detokenizer(model),
    }.items():
        network.half().save_pretrained(tmp_path / component, variant="fp16", max_shard_size=shard_size)
    files = [file.name for file in (tmp_path / "transformer").glob("*.safetensors")]
    assert all(".fp16" in name for name in files) and (len(files) > 1) == (shard_size == "100KB")
    for file in tmp_path.rglob("*.index.fp16.json"):
        if not index:
            file.unlink()
    loaded, _ = load_network(tmp_path)
    assert_same(loaded, {name: tensor.half().float() for name, tensor in model.state_dict().items()})


def test_the_plain_files_win_over_a_variant(tmp_path, model):
    folder = layouts.diffusers(tmp_path / "diffusers", model)
    for component in DIFFUSERS_COMPONENTS:
        file = folder / component / "diffusion_pytorch_model.fp16.safetensors"
        layouts.save(file, {"wrong": torch.zeros(2)})
    assert_same(load_network(folder)[0], model.state_dict())


def test_a_variant_of_a_text_encoder_that_transformers_wrote(tmp_path, tiny_encoder, tiny_tokenizer_dir):
    tiny_encoder.module.save_pretrained(tmp_path, variant="fp16")
    assert [file.name for file in tmp_path.glob("*.safetensors")] == ["model.fp16.safetensors"]
    loaded, _ = load_text_encoder(tmp_path, tokenizer=tiny_tokenizer_dir)
    assert_same(loaded.module, tiny_encoder.module.state_dict())


def test_a_variant_of_a_vae(tmp_path, vae):
    state = layouts.vae_state(vae, layouts.fused, stable_audio=False)
    layouts.save(tmp_path / "vae" / "diffusion_pytorch_model.fp16.safetensors", state)
    assert_same(load_vae(tmp_path / "vae")[0], state)


def test_a_diffusers_folder_may_lack_the_audio_tokenizer(tmp_path, model):
    layouts.diffusers(tmp_path, model)
    for part in ("audio_tokenizer", "audio_token_detokenizer"):
        for file in (tmp_path / part).iterdir():
            file.unlink()
        (tmp_path / part).rmdir()
    loaded, report = load_network(tmp_path)
    assert report.without == ("tokenizer", "detokenizer")
    assert loaded.tokenizer is None and loaded.detokenizer is None
    assert_same(loaded.decoder, model.decoder.state_dict())


@pytest.mark.parametrize("stable_audio", [False, True], ids=["diffusers names", "stable-audio names"])
@pytest.mark.parametrize("spelling", [layouts.pair, layouts.parametrized, layouts.fused])
def test_vae(tmp_path, vae, spelling, stable_audio):
    expected = layouts.vae_state(vae, layouts.fused, stable_audio=False)
    file = layouts.save(tmp_path / "vae.safetensors", layouts.vae_state(vae, spelling, stable_audio))
    loaded, report = load_vae(file)
    assert_same(loaded, expected)
    assert (loaded.config, report.matched) == (vae.config, len(expected))


def test_vae_folder(tmp_path, vae):
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    layouts.save(file, layouts.vae_state(vae, layouts.pair, stable_audio=False))
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"sampling_rate": 48000}))
    expected = layouts.vae_state(vae, layouts.fused, stable_audio=False)
    for path in (tmp_path / "vae", file):
        loaded, report = load_vae(path)
        assert_same(loaded, expected)
        assert report.layout is Layout.ORIGINAL


def test_folding_is_torchs_weight_norm():
    from torch.nn.utils.parametrizations import weight_norm

    for layer in (torch.nn.Conv1d(6, 4, 3), torch.nn.ConvTranspose1d(6, 4, 3)):
        normed = weight_norm(layer)
        parts = normed.parametrizations.weight
        parts.original0.data.mul_(torch.linspace(0.5, 2, len(parts.original0)).reshape(-1, 1, 1))
        folded = fold_weight_norm(parts.original1, parts.original0)
        torch.testing.assert_close(folded, normed.weight)


def test_all_in_one(tmp_path, model, vae, tiny_encoder, tiny_tokenizer_dir):
    file = layouts.all_in_one(tmp_path / "aio_sft.safetensors", model, vae, tiny_encoder.module)
    network, report = load_network(file)
    assert_same(network, model.state_dict())
    assert report.layout is Layout.COMFY_ALL_IN_ONE and report.unexpected == ()
    assert_same(load_vae(file)[0], layouts.vae_state(vae, layouts.fused, stable_audio=False))
    text_encoder, _ = load_text_encoder(file, tokenizer=tiny_tokenizer_dir)
    assert_same(text_encoder.module, tiny_encoder.module.state_dict())


@pytest.mark.parametrize("prefix", ["", "model."])
def test_text_encoder_gives_the_same_states(tmp_path, tiny_encoder: TextEncoder, tiny_tokenizer_dir, prefix):
    from acestep_core.song.song import Song

    state = layouts.prefixed(prefix, tiny_encoder.module.state_dict())
    file = layouts.save(tmp_path / "text.safetensors", state)
    loaded, report = load_text_encoder(file, tokenizer=tiny_tokenizer_dir)
    assert report.matched == len(state)
    song = Song(caption="slow piano", lyrics="[Verse]\nriver")
    got, expected = loaded.encode(song), tiny_encoder.encode(song)
    assert torch.equal(got.caption, expected.caption) and torch.equal(got.lyrics, expected.lyrics)


def test_text_encoder_folder_has_its_tokenizer(tmp_path, tiny_encoder, tiny_tokenizer_dir):
    layouts.save(tmp_path / "model.safetensors", tiny_encoder.module.state_dict())
    for file in tiny_tokenizer_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"rope_parameters": {"rope_theta": 500.0}, "vocab_size": 420}))
    loaded, _ = load_text_encoder(tmp_path)
    assert_same(loaded.module, tiny_encoder.module.state_dict())
    expected = 1 / 500.0 ** (torch.arange(0, 16, 2) / 16)
    torch.testing.assert_close(loaded.module.rotary_emb.inv_freq, expected)


@pytest.mark.parametrize(
    ("stated", "metadata", "name", "variant"),
    [
        ({"is_turbo": True, "model_version": "turbo"}, {}, "renamed_base", "turbo"),
        ({"is_turbo": True, "model_version": "turbo"}, {}, "acestep-v15-turbo-shift1", "turbo-shift1"),
        ({"is_turbo": False, "model_version": "sft"}, {}, "anything", "sft"),
        ({"is_turbo": False}, {}, "anything", "base"),
        ({}, {"model_version": "base"}, "anything", "base"),
        ({}, {}, "acestep_v1.5_sft", "sft"),
        ({}, {}, "acestep-v15-base-sft-fix-inst", "sft"),
        ({}, {}, "acestep-v15-turbo-continuous", "turbo-continuous"),
        ({}, {}, "acestep_v1.5_xl_base_bf16", "base"),  # the tensors are those of a 2B
        ({}, {}, "mystery", "turbo"),
    ],
)
def test_variant(tmp_path, stated, metadata, name, variant):
    layouts.save(tmp_path / name / "model.safetensors", tiny.model().state_dict(), metadata)
    layouts.save_config(tmp_path / name, stated)
    source = open_network(tmp_path / name)
    assert source.variant.name == variant
    assert source.guessed == (name == "mystery")
    assert open_network(tmp_path / name, "xl-sft").variant.name == "xl-sft"


def test_variant_of_xl_from_a_file_name(tmp_path):
    file = layouts.comfy_split(tmp_path / "acestep_v1.5_xl_base_bf16.safetensors", tiny.model(tiny.XL))
    model, report = load_network(file)
    assert report.variant.name == model.config.model_version == "xl-base"
    assert not model.config.is_turbo
