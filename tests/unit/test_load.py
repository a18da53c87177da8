import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from acestep_core import load
from acestep_core.checkpoints import build as loading
from acestep_core.checkpoints.build import load_vae
from acestep_core.checkpoints.catalog import NANO
from acestep_core.errors import CheckpointError, RequestError
from acestep_core.pipeline import encode, generate, load_model
from acestep_core.runtime.devices import Precision
from acestep_core.song.song import Metadata, Song
from acestep_core.text.prompts import ORIGINAL, STEMS
from tests.support import tiny, tiny_checkpoint, tiny_text

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder

SONG = Song("warm lo-fi piano", "[Verse]\nslow river", Metadata(duration=1.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer_dir):
    root = tmp_path_factory.mktemp("model")
    tiny_checkpoint.write_tiny_checkpoint(root, tiny_tokenizer_dir)
    return root


def test_load_a_folder(folder):
    model = load_model(folder, device="cpu", dtype="float32")
    assert model.note == tiny_checkpoint.NOTE
    assert model.origin == {"model": str(folder)}
    assert model.defaults.is_turbo and model.defaults.steps == 8
    assert generate(model, SONG, seed=7).waveform.abs().max() == pytest.approx(0.8912509)


def test_precision_per_network(folder):
    precision = Precision(torch.float16, torch.float32, torch.bfloat16, torch.float32)
    model = load_model(folder, device="cpu", dtype=precision)
    assert model.network.decoder.dtype == model.network.null_condition_emb.dtype == torch.float16
    assert model.network.encoder.dtype == torch.float32
    assert next(model.text_encoder.module.parameters()).dtype == torch.bfloat16
    assert model.vae.dtype == torch.float32
    wide = load_model(folder, device="cpu", dtype="float32")
    low, high = (generate(each, SONG, seed=7).latents for each in (model, wide))
    assert tiny.cosine(low, high) > 0.99


def test_quantized_storage(folder):
    whole = load_model(folder, device="cpu", dtype="float32", storage="none")  # overrides a recipe
    assert "storage" not in whole.origin
    expected = generate(whole, SONG, seed=7).latents
    for storage, dtype, near in (("int8", torch.int8, 0.9999), ("fp8", torch.float8_e4m3fn, 0.999)):
        model = load_model(folder, device="cpu", dtype="float32", storage=storage)
        assert model.network.decoder.layers[0].mlp.up_proj.weight.dtype == dtype
        assert model.network.decoder.dtype == torch.float32 and model.origin["storage"] == storage
        assert near < tiny.cosine(generate(model, SONG, seed=7).latents, expected) < 1
    half = load_model(folder, device="cpu", dtype="float16", storage="int8")
    assert half.network.encoder.dtype == torch.float32  # as without: its lyric encoder would overflow
    assert tiny.cosine(generate(half, SONG, seed=7).latents, expected) > 0.99


def test_parts_and_variant_can_be_chosen(folder):
    model = load_model(folder, device="cpu", dtype="float32", vae=folder / "vae", variant="base")
    assert model.defaults.steps == 50 and not model.network.config.is_turbo
    assert model.origin == {"model": str(folder), "vae": str(folder / "vae"), "variant": "base"}
    own, _ = load_vae(folder / "vae")
    assert torch.equal(own.decoder.conv2.weight, model.vae.decoder.conv2.weight)
    whole = load_model(folder, device="cpu", vae=folder, text_encoder=str(folder))  # the model that has them
    assert torch.equal(own.decoder.conv2.weight, whole.vae.decoder.conv2.weight)


def test_a_missing_part_names_the_searched_paths(folder):
    with pytest.raises(CheckpointError, match="no .*nowhere"):
        load_model(folder, device="cpu", vae=folder / "nowhere", models_dir=str(folder))
    with pytest.raises(CheckpointError, match="no scragvae.*models"):
        load_model(folder, device="cpu", vae="scragvae", models_dir=str(folder))


def test_a_broken_part_of_a_named_model_is_named(folder, tmp_path):
    other = shutil.copytree(folder / "vae", tmp_path / "other" / "vae").parent
    (weights,) = (other / "vae").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="VAE of .*other.*truncated"):
        load_model(folder, device="cpu", vae=other)


@pytest.fixture
def single_files(tmp_path, folder):
    """ComfyUI's folder of models with the same weights and without a tokenizer."""
    parts = {
        "diffusion_models/acestep_v1.5_turbo": "acestep-v15-turbo/model",
        "text_encoders/qwen_0.6b_ace15": "Qwen3-Embedding-0.6B/model",
        "vae/ace_1.5_vae": "vae/diffusion_pytorch_model",
    }
    for name, source in parts.items():
        (tmp_path / name).parent.mkdir()
        shutil.copy(folder / f"{source}.safetensors", tmp_path / f"{name}.safetensors")
    return tmp_path


def test_load_single_files_with_a_separate_tokenizer(single_files, folder, monkeypatch):
    choice = {"device": "cpu", "dtype": "float32", "models_dir": str(single_files)}
    with monkeypatch.context() as nothing, pytest.raises(CheckpointError, match="acestep download tokenizer"):
        nothing.setattr(loading, "load_network", None)  # fails before the weights are read
        load_model("comfy-turbo", **choice)
    words = single_files / "Qwen3-Embedding-0.6B"
    words.mkdir()
    shutil.copy(folder / "Qwen3-Embedding-0.6B" / "tokenizer.json", words)
    model = load_model("comfy-turbo", **choice)
    assert generate(model, SONG, seed=7).waveform.abs().max() == pytest.approx(0.8912509)
    (single_files / "text_encoders" / "qwen_0.6b_ace15.safetensors").rename(single_files / "mine.safetensors")
    model = load_model("comfy-turbo", text_encoder=single_files / "mine.safetensors", **choice)
    assert encode(model, SONG).caption.shape[-1] == tiny_checkpoint.TEXT.hidden_size


def test_a_text_encoder_of_another_model_is_refused(folder):
    with pytest.raises(CheckpointError, match="128 values"):
        load_model(folder, device="cpu", text_encoder=NANO / "Qwen3-Embedding-0.6B")


def test_a_missing_device_is_refused_before_loading(folder, monkeypatch):
    monkeypatch.setattr(load, "default_placement", None)  # would fail if reached
    with pytest.raises(RequestError, match="cuda:99"):
        load_model(folder, device="cuda:99")


def test_importing_the_package_is_cheap():
    code = (
        "import sys, acestep_core, acestep_core.cli, acestep_core.song.song;"
        "heavy = {'torch', 'transformers', 'numpy', 'soundfile', 'huggingface_hub'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "assert callable(acestep_core.generate) and 'torch' in sys.modules;"
        "assert not {'transformers', 'soundfile', 'huggingface_hub'} & set(sys.modules);"
        "assert all(hasattr(acestep_core, name) for name in acestep_core.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_trained_on_stems_has_its_own_prompts(folder):
    model = load_model(folder, device="cpu", dtype="float32")
    assert model.style == ORIGINAL
    assert load.prompt_style(tiny.model(replace(tiny_checkpoint.NETWORK, is_lego_sft=True))) == STEMS
