"""Finding the parts of a model by a name or a path, and the errors for missing parts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from acestep_core.checkpoints.build import load_network, load_text_encoder, load_vae
from acestep_core.checkpoints.catalog import NANO, Kind
from acestep_core.checkpoints.find import find_checkpoint
from acestep_core.checkpoints.layouts import Layout
from acestep_core.errors import CheckpointError
from tests.support import layouts, tiny, tiny_text

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def vae():
    return tiny.vae()


def put_vae(path: Path, vae) -> Path:
    name = path if path.suffix == ".safetensors" else path / "diffusion_pytorch_model.safetensors"
    layouts.save(name, layouts.vae_state(vae, layouts.pair, stable_audio=path.suffix == ".safetensors"))
    return path


def put_text(path: Path, encoder, tokenizer: Path | None) -> Path:
    layouts.save(path if path.suffix == ".safetensors" else path / "model.safetensors", encoder.module.state_dict())
    if tokenizer is not None:
        put_tokenizer(path, tokenizer)
    return path


def put_tokenizer(folder: Path, tokenizer: Path) -> Path:
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def bundle(tmp_path, model, vae, tiny_encoder, tiny_tokenizer_dir):
    """The original's folder of models."""
    root = tmp_path / "bundle"
    layouts.original(root / "acestep-v15-turbo", model)
    put_vae(root / "vae", vae)
    put_text(root / "Qwen3-Embedding-0.6B", tiny_encoder, tiny_tokenizer_dir)
    return root


@pytest.fixture
def comfy(tmp_path, model, vae, tiny_encoder, tiny_tokenizer_dir):
    """ComfyUI's folder of models, with files of other models in it."""
    root = tmp_path / "models"
    layouts.comfy_split(root / "diffusion_models" / "acestep_v1.5_turbo.safetensors", model)
    layouts.save(root / "diffusion_models" / "a_flux.safetensors", {"double_blocks.0.x": tiny.draw(2)})
    put_vae(root / "vae" / "ace_1.5_vae.safetensors", vae)
    layouts.save(root / "vae" / "ae.safetensors", {"decoder.conv_in.weight": tiny.draw(2)})
    put_text(root / "text_encoders" / "qwen_0.6b_ace15.safetensors", tiny_encoder, None)
    layouts.save(root / "text_encoders" / "clip_l.safetensors", {"text_model.x": tiny.draw(2)})
    put_tokenizer(root / "text_encoders" / "tokenizer", tiny_tokenizer_dir)
    return root


def check_bundle(found, root: Path, name: str = "turbo"):
    assert found.network == root / "acestep-v15-turbo" and found.layout is Layout.ORIGINAL
    assert found.vae == root / "vae"
    assert found.text_encoder == found.tokenizer == root / "Qwen3-Embedding-0.6B"
    assert (found.name, found.variant.name) == (name, "turbo")


def test_bundle(bundle):
    check_bundle(find_checkpoint("turbo", [bundle]), bundle)
    check_bundle(find_checkpoint("turbo", [bundle.parent / "nothing", str(bundle)]), bundle)
    check_bundle(find_checkpoint(bundle), bundle, "acestep-v15-turbo")
    check_bundle(find_checkpoint(bundle / "acestep-v15-turbo"), bundle, "acestep-v15-turbo")
    check_bundle(find_checkpoint("acestep-v15-turbo", [bundle]), bundle, "acestep-v15-turbo")
    file = bundle / "acestep-v15-turbo" / "model.safetensors"
    check_bundle(find_checkpoint(file), bundle, "acestep-v15-turbo")


def test_bundle_below_a_comfyui_folder(bundle, tmp_path):
    home = tmp_path / "ComfyUI" / "models" / "acestep"
    shutil.copytree(bundle, home)
    check_bundle(find_checkpoint("turbo", [home.parent]), home)
    check_bundle(find_checkpoint("acestep-v15-turbo", [home.parent]), home, "acestep-v15-turbo")


def test_several_variants_in_a_bundle(bundle):
    shutil.copytree(bundle / "acestep-v15-turbo", bundle / "acestep-v15-sft")
    check_bundle(find_checkpoint(bundle), bundle, "acestep-v15-turbo")
    (bundle / "acestep-v15-turbo").rename(bundle / "acestep-v15-base")
    with pytest.raises(CheckpointError, match="several models.*acestep-v15-base, acestep-v15-sft"):
        find_checkpoint(bundle)


def test_diffusers_folder(tmp_path, model, vae, tiny_encoder, tiny_tokenizer_dir):
    folder = layouts.diffusers(tmp_path / "acestep-v15-xl-turbo-diffusers", model)
    put_vae(folder / "vae", vae)
    put_text(folder / "text_encoder", tiny_encoder, None)
    put_tokenizer(folder / "tokenizer", tiny_tokenizer_dir)
    for name, roots in ((folder, []), ("xl-turbo", [tmp_path]), ("xl-turbo-diffusers", [tmp_path])):
        found = find_checkpoint(name, roots)
        assert found.network == found.vae == found.text_encoder == folder
        assert (found.tokenizer, found.layout) == (folder / "tokenizer", Layout.DIFFUSERS)


def test_comfyui_files(comfy):
    network = comfy / "diffusion_models" / "acestep_v1.5_turbo.safetensors"
    for name in ("turbo", "comfy-turbo", comfy, network, network.name):
        found = find_checkpoint(name, [comfy])
        assert (found.network, found.layout) == (network, Layout.COMFY_SPLIT)
        assert found.vae == comfy / "vae" / "ace_1.5_vae.safetensors"
        assert found.text_encoder == comfy / "text_encoders" / "qwen_0.6b_ace15.safetensors"


def test_comfyui_files_by_other_names_in_sub_folders(comfy):
    network = comfy / "diffusion_models" / "ace" / "my_sft.safetensors"
    network.parent.mkdir()
    (comfy / "diffusion_models" / "acestep_v1.5_turbo.safetensors").rename(network)
    vae = (comfy / "vae" / "ace_1.5_vae.safetensors").rename(comfy / "vae" / "z.safetensors")
    for name in (comfy, network):
        found = find_checkpoint(name)
        assert (found.network, found.vae, found.variant.name) == (network, vae, "sft")


def test_text_encoders_of_other_models_are_skipped(comfy, tiny_encoder):
    own = comfy / "text_encoders" / "qwen_0.6b_ace15.safetensors"
    other = {**tiny_encoder.module.state_dict(), "layers.0.self_attn.q_proj.bias": torch.zeros(2)}
    layouts.save(own.with_name("a_qwen_2.5_vl_7b.safetensors"), layouts.prefixed("model.", other))
    renamed = own.rename(own.with_name("z.safetensors"))
    assert find_checkpoint(comfy).text_encoder == renamed


def test_tokenizer_beside_a_single_file(comfy, tiny_tokenizer_dir):
    with pytest.raises(CheckpointError, match="tokenizer: .*`acestep download tokenizer`"):
        find_checkpoint("turbo", [comfy]).path_of(Kind.TOKENIZER)
    folder = put_tokenizer(comfy / "acestep" / "Qwen3-Embedding-0.6B", tiny_tokenizer_dir)
    assert find_checkpoint("turbo", [comfy]).tokenizer == folder


def test_all_in_one(tmp_path, model, vae, tiny_encoder):
    file = tmp_path / "checkpoints" / "ace_step_1.5_turbo_aio.safetensors"
    layouts.all_in_one(file, model, vae, tiny_encoder.module)
    for name, roots in (("comfy-turbo-aio", [tmp_path]), ("turbo", [tmp_path]), (tmp_path, []), (file, [])):
        found = find_checkpoint(name, roots)
        assert found.network == found.vae == found.text_encoder == file
        assert found.layout is Layout.COMFY_ALL_IN_ONE and found.tokenizer is None


def test_the_error_for_a_missing_part_lists_the_searched_folders(bundle, tmp_path):
    shutil.rmtree(bundle / "vae")
    (bundle / "Qwen3-Embedding-0.6B" / "model.safetensors").unlink()
    found = find_checkpoint(bundle / "acestep-v15-turbo", [tmp_path / "root"])
    assert found.vae is found.text_encoder is None
    with pytest.raises(CheckpointError) as caught:
        found.path_of(Kind.VAE)
    message = str(caught.value)
    assert message.startswith(f"VAE: none found for {bundle / 'acestep-v15-turbo'}")
    for place in (bundle / "vae", tmp_path / "root" / "vae", tmp_path / "root" / "acestep" / "vae"):
        assert str(place) in message
    assert "`acestep download vae`" in message
    with pytest.raises(CheckpointError, match="text encoder: .*`acestep download text-encoder`"):
        found.path_of(Kind.TEXT_ENCODER)
    assert found.path_of(Kind.NETWORK) == bundle / "acestep-v15-turbo"
    assert found.path_of(Kind.TOKENIZER) == bundle / "Qwen3-Embedding-0.6B"  # for a text encoder that the user chooses


def test_the_error_for_a_broken_part(bundle, comfy):
    file = bundle / "vae" / "diffusion_pytorch_model.safetensors"
    os.truncate(file, file.stat().st_size - 100)
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("turbo", [bundle]).path_of(Kind.VAE)
    assert f"{file} is truncated" in str(caught.value)
    folder = bundle / "Qwen3-Embedding-0.6B"
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="text encoder .*lacks 1 of its 2 shards"):
        find_checkpoint("turbo", [bundle]).path_of(Kind.TEXT_ENCODER)

    file = comfy / "vae" / "ace_1.5_vae.safetensors"
    os.truncate(file, 40)
    with pytest.raises(CheckpointError, match="VAE .*ace_1.5_vae.safetensors is truncated"):
        find_checkpoint("turbo", [comfy]).path_of(Kind.VAE)
    file.unlink()  # complete files of other models are no reason
    with pytest.raises(CheckpointError, match="VAE: none found"):
        find_checkpoint("turbo", [comfy]).path_of(Kind.VAE)


def broken_message(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_error_for_a_broken_diffusion_model_in_a_folder_of_models(bundle):
    model = bundle / "acestep-v15-turbo"
    good = {file: file.read_bytes() for file in model.iterdir()}

    (model / "config.json").write_text('{"num_hidden_layers": 2}')
    assert "num_hidden_layers is 2" in broken_message(bundle)
    (model / "config.json").write_text("{")
    assert "config.json cannot be read" in broken_message(bundle)
    (model / "config.json").write_bytes(good[model / "config.json"])

    os.truncate(model / "model.safetensors", 5000)
    assert f"{model / 'model.safetensors'} is truncated" in broken_message(bundle)
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    assert "lacks 1 of its 2 shards" in broken_message(bundle)
    os.truncate(bundle / "vae" / "diffusion_pytorch_model.safetensors", 40)  # a part's fault is not the model's
    assert "lacks 1 of its 2 shards" in broken_message(bundle)
    shutil.rmtree(model)
    assert "holds no model.safetensors" in broken_message(bundle)


def test_another_model_in_the_folder_replaces_a_broken_one(bundle):
    shutil.copytree(bundle / "acestep-v15-turbo", bundle / "acestep-v15-sft")
    os.truncate(bundle / "acestep-v15-turbo" / "model.safetensors", 5000)
    assert find_checkpoint(bundle).network == bundle / "acestep-v15-sft"


def test_the_error_for_a_broken_single_file_in_comfyuis_folder(comfy):
    file = comfy / "diffusion_models" / "acestep_v1.5_turbo.safetensors"
    file = file.rename(file.with_name("mine.safetensors"))
    state = dict(tiny.model().state_dict())
    state.pop("decoder.layers.1.self_attn_norm.weight")
    layouts.save(file, {name: tensor for name, tensor in state.items() if not name.startswith("decoder.layers.1.")})
    assert "decoder.layers.1" in broken_message(comfy)
    os.truncate(file, 40)
    assert f"{file} is truncated" in broken_message(comfy)


def test_nothing_by_that_name(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("sft", [tmp_path])
    message = str(caught.value)
    assert message.startswith("sft is not installed")
    assert str(tmp_path / "acestep-v15-sft") in message
    assert str(tmp_path / "diffusion_models" / "acestep_v1.5_sft.safetensors") in message
    assert "`acestep download sft`" in message
    with pytest.raises(CheckpointError, match="'gizmo'.*nano, turbo"):
        find_checkpoint("gizmo", [tmp_path])
    with pytest.raises(CheckpointError, match="lm-4b is a planner LM.*nano, turbo"):
        find_checkpoint("lm-4b", [tmp_path])


def test_folders_that_hold_no_model(tmp_path):
    with pytest.raises(CheckpointError, match="is empty"):
        find_checkpoint(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(CheckpointError, match="holds no model.safetensors"):
        find_checkpoint(tmp_path)


def test_the_error_names_another_model(tmp_path):
    file = layouts.save(tmp_path / "ace.safetensors", {"genre_embedder.weight": tiny.draw(2)})
    with pytest.raises(CheckpointError, match="ACE-Step 1.0 checkpoint"):
        find_checkpoint(file)


def test_nano_comes_with_the_package():
    found = find_checkpoint("nano")
    assert (found.name, found.layout) == ("nano", Layout.ORIGINAL)
    assert {found.network.parent, found.vae.parent, found.text_encoder.parent, found.tokenizer.parent} == {NANO}
    network, report = load_network(found.network)
    text_encoder, _ = load_text_encoder(found.text_encoder, tokenizer=found.tokenizer)
    assert not report.unexpected and not report.dropped and network.silence_latent is not None
    assert text_encoder.module.config.hidden_size == network.config.text_hidden_dim
    vae, _ = load_vae(found.vae)
    assert vae.config.decoder_input_channels == network.config.audio_acoustic_hidden_dim
