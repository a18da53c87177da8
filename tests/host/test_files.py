"""Where models come from: folders, single files, extra_model_paths, and a file that changes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.layouts import as_one_file

from .graph import find, load_workflow, to_prompt, with_inputs
from .server import REPO, ComfyServer, PromptRejected

NANO = REPO / "acestep_core" / "nano"
NETWORK = "acestep-v15-nano"


@pytest.fixture(scope="module")
def prompt(server: ComfyServer) -> dict:
    """The shipped workflow in a hurry."""
    shipped = to_prompt(load_workflow(REPO / "workflows" / "text_to_music.json"), server.object_info())
    return with_inputs(with_inputs(shipped, "AS15_Song", duration=1.0), "AS15_Sample", steps=1)


@pytest.fixture(scope="module")
def models(server: ComfyServer) -> Iterator[Path]:
    """A model folder with its parts beside it, and the same networks as single files."""
    folder = server.base / "models"
    shutil.copytree(NANO, folder / "acestep" / "bundle")
    for category, part in (("diffusion_models", NETWORK), ("vae", "vae")):
        as_one_file(NANO / part, folder / category / f"acestep_v1.5_turbo_{category}.safetensors")
    (folder / "diffusion_models" / "another_model.safetensors").write_bytes(b"")
    (folder / "acestep" / "half").mkdir()  # a download under way: an index, and no shard yet
    index = {"weight_map": {"decoder.norm_out.weight": "model-00001-of-00002.safetensors"}}
    (folder / "acestep" / "half" / "model.safetensors.index.json").write_text(json.dumps(index))
    yield folder
    shutil.rmtree(folder / "acestep" / "half")
    shutil.rmtree(folder / "acestep" / "bundle")
    for file in folder.rglob("*.safetensors"):  # not their folders: ComfyUI's own loaders stumble over that
        file.unlink()


def options(server: ComfyServer, widget: str) -> list[str]:
    return server.object_info()["AS15_LoadModel"]["input"]["required"][widget][1]["options"]


def test_an_empty_list_says_what_to_put_where(server: ComfyServer, prompt: dict) -> None:
    first, hint = options(server, "model")
    assert first == "nano" and "models/acestep" in hint and "models/diffusion_models" in hint
    assert "models/text_encoders" in options(server, "text_encoder")[1] and "models/vae" in options(server, "vae")[1]
    with pytest.raises(PromptRejected) as refusal:
        server.play(with_inputs(prompt, "AS15_LoadModel", model=hint))
    assert "only says where models go: put model folders into models/acestep" in str(refusal.value)


def test_dropdowns_list_what_is_there(server: ComfyServer, models: Path) -> None:
    """Ours first; a folder appears under the part that it holds, and nowhere else; half a model nowhere."""
    assert options(server, "model")[:3] == [
        "nano",
        f"acestep/bundle/{NETWORK}",
        "diffusion_models/acestep_v1.5_turbo_diffusion_models.safetensors",
    ]
    assert options(server, "model")[-1] == "diffusion_models/another_model.safetensors"
    assert options(server, "text_encoder") == ["auto", "acestep/bundle/Qwen3-Embedding-0.6B"]
    assert options(server, "vae") == ["auto", "acestep/bundle/vae", "vae/acestep_v1.5_turbo_vae.safetensors"]


def test_a_folder_appears_once_its_file_is_whole(server: ComfyServer) -> None:
    """Written in place, as some downloaders do, a file leaves the time of its folder as it was."""
    folder = server.base / "models" / "acestep" / "slow"
    weights = folder / "diffusion_pytorch_model.safetensors"
    shutil.copytree(NANO / "vae", folder)
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:1000])
        assert "acestep/slow" not in options(server, "vae")
        time = folder.stat().st_mtime_ns
        weights.write_bytes(whole)
        assert folder.stat().st_mtime_ns == time
        assert "acestep/slow" in options(server, "vae")
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("model", "text_encoder", "vae"),
    [
        (f"acestep/bundle/{NETWORK}", "auto", "auto"),
        ("diffusion_models/acestep_v1.5_turbo_diffusion_models.safetensors", "auto", "auto"),
        (
            "diffusion_models/acestep_v1.5_turbo_diffusion_models.safetensors",
            "acestep/bundle/Qwen3-Embedding-0.6B",
            "vae/acestep_v1.5_turbo_vae.safetensors",
        ),
    ],
)
def test_every_way_to_choose_plays(
    server: ComfyServer, prompt: dict, models: Path, model: str, text_encoder: str, vae: str
) -> None:
    server.play(with_inputs(prompt, "AS15_LoadModel", model=model, text_encoder=text_encoder, vae=vae))


def test_a_changed_file_is_read_again(server: ComfyServer, prompt: dict, models: Path) -> None:
    chosen = with_inputs(prompt, "AS15_LoadModel", model=f"acestep/bundle/{NETWORK}")
    loader = find(chosen, "AS15_LoadModel")
    server.play(chosen)
    assert loader in server.play(chosen).cached
    file = models / "acestep" / "bundle" / "vae" / "diffusion_pytorch_model.safetensors"
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert loader not in server.play(chosen).cached


def test_extra_model_paths(prompt: dict, tmp_path: Path) -> None:
    shutil.copytree(NANO, tmp_path / "elsewhere" / "songs" / "mine")
    config = tmp_path / "paths.yaml"
    config.write_text(f"shared:\n  base_path: {tmp_path / 'elsewhere'}\n  acestep: songs\n")
    comfy = ComfyServer(tmp_path / "comfyui", args=("--cpu", "--extra-model-paths-config", str(config)))
    comfy.install(REPO, "pack")
    with comfy:
        assert f"acestep/mine/{NETWORK}" in options(comfy, "model")
        comfy.play(with_inputs(prompt, "AS15_LoadModel", model=f"acestep/mine/{NETWORK}"))
