"""Load models with adapters: exact, quantised, offloaded, and recorded in the recipe."""

import json

import pytest
import torch

from acestep_core import AdapterUse, Recipe, encode, generate, load_model, read_adapter, sample, with_adapters
from acestep_core.errors import CheckpointError, RequestError
from acestep_core.sampling.settings import SamplingSettings
from acestep_core.song.song import Metadata, Song
from tests.support import tiny, tiny_checkpoint, tiny_text
from tests.support.adapter_files import LINEAR, comfyui_file, factors
from tests.support.simulated_cuda import simulated_cuda

tiny_tokenizer_dir = tiny_text.tiny_tokenizer_dir
SONG = Song("warm lo-fi piano", metadata=Metadata(duration=1.0))
OPTIONS = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer_dir):
    root = tmp_path_factory.mktemp("model")
    tiny_checkpoint.write_tiny_checkpoint(root, tiny_tokenizer_dir)
    lora = factors(tiny_checkpoint.NETWORK)
    comfyui_file(root / "loras" / "style.safetensors", lora)
    comfyui_file(root / "loras" / "other.safetensors", factors(tiny_checkpoint.NETWORK, seed=50))
    return root


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, models_dir=str(folder), **OPTIONS)


def test_loaded_and_added_adapters_are_the_same_and_the_model_stays(model, folder):
    plain = generate(model, SONG, seed=7).latents
    adapters = ["style", ("other", 0.5)]
    added = with_adapters(model, adapters, models_dir=str(folder))
    loaded = load_model(folder, adapters=adapters, models_dir=str(folder), **OPTIONS)
    first, second = added.network.state_dict(), loaded.network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    songs = [generate(each, SONG, seed=7).latents for each in (added, loaded, model)]
    assert torch.equal(songs[0], songs[1]) and torch.equal(songs[2], plain)
    assert tiny.relative_error(songs[0], plain) > 0.01


@pytest.mark.parametrize("storage", ["int8", "fp8"])
def test_weights_are_quantised_once_after_the_merge(folder, storage):
    options = {"models_dir": str(folder), "storage": storage, **OPTIONS}
    layers = [
        load_model(folder, adapters=adapters, **options).network.decoder.layers[0].self_attn.q_proj
        for adapters in ([], ["style"])
    ]
    exact = load_model(folder, adapters=["style"], models_dir=str(folder), **OPTIONS).network.decoder.layers[0]
    weight = exact.self_attn.q_proj.weight
    expected = type(layers[1])(*weight.shape[::-1], bias=False, storage=layers[1].storage)
    expected.store(weight)
    assert torch.equal(layers[1].weight.float(), expected.weight.float())
    assert torch.equal(layers[1].scale, expected.scale)
    assert not torch.equal(layers[1].weight.float(), layers[0].weight.float())


def test_a_recipe_records_name_strength_and_hash(model, folder):
    adapter = read_adapter(folder / "loras" / "style.safetensors")
    changed = with_adapters(model, [AdapterUse(adapter, 0.7, {"mlp": 0})], models_dir=str(folder))
    recipe = generate(changed, SONG, seed=7).recipe()
    values = json.loads(json.dumps(recipe.to_dict()))
    record = {"name": "style.safetensors", "strength": 0.7, "sha256": adapter.sha256, "groups": {"mlp": 0}}
    assert values["loras"] == [record] and Recipe.from_dict(values).adapters == recipe.adapters
    assert "loras" not in generate(model, SONG, seed=7).recipe().to_dict()
    assert len(with_adapters(changed, ["other"], models_dir=str(folder)).adapters) == 2


def test_adapters_are_refused_before_a_weight_is_read(folder, monkeypatch):
    wide = factors(tiny.XL, LINEAR[:1])
    comfyui_file(folder / "wide.safetensors", wide)
    monkeypatch.setattr("acestep_core.checkpoints.weights.TensorReader", None)
    with pytest.raises(RequestError, match="width 64"):
        load_model(folder, adapters=[folder / "wide.safetensors"], **OPTIONS)
    monkeypatch.setattr("acestep_core.checkpoints.build.load_network", None)
    for adapters, error, words in (
        ("style", RequestError, "list"),
        ([5], RequestError, "AdapterUse"),
        ([("style", "1")], RequestError, "strength"),
        (["nothing"], CheckpointError, "nothing"),
    ):
        with pytest.raises(error, match=words):
            load_model(folder, adapters=adapters, models_dir=str(folder), **OPTIONS)


def test_compiled_layers_stay_compiled(model, folder, monkeypatch):
    compiled = []
    monkeypatch.setattr("acestep_core.adapters.merge.compile_parts", compiled.append)
    with_adapters(model, ["style"], models_dir=str(folder))
    assert not compiled
    layer = model.network.decoder.layers[0]
    monkeypatch.setattr(layer, "_compiled_call_impl", layer.forward, raising=False)
    changed = with_adapters(model, ["style"], models_dir=str(folder))
    assert compiled == [changed.network]


def latents(model) -> torch.Tensor:
    return sample(model, encode(model, SONG), seconds=1, seeds=[7], settings=SamplingSettings(steps=2))


def test_adapters_of_a_streamed_quantised_model(folder):
    there = {"models_dir": str(folder), "storage": "int8", **OPTIONS}
    here = load_model(folder, **there)
    plain, expected = latents(here), latents(load_model(folder, adapters=["style"], **there))
    with simulated_cuda():
        model = load_model(folder, **there | {"device": "cuda", "stream": True})
        loaded = load_model(folder, adapters=["style"], **there | {"device": "cuda", "stream": True})
        added = latents(with_adapters(model, ["style"], models_dir=str(folder)))
        assert torch.allclose(latents(loaded), expected, atol=2e-4)
        assert torch.allclose(latents(model), plain, atol=2e-4)  # it stays as it is
    assert tiny.cosine(added, expected) > 0.999 > tiny.cosine(plain, expected)
