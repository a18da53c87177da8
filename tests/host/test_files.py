"""Model files: folders, single files, extra_model_paths, and files that change."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from acestep_core.checkpoints.catalog import NANO
from tests.support.gguf_files import write_gguf
from tests.support.single_files import PARTS, file_name, state_of, write_single_files

from .graph import find, load_workflow, to_prompt, with_inputs
from .server import REPO, ComfyServer, PromptRejected

NETWORK = "acestep-v15-nano"
SINGLE = {category: file_name(category) for category in (*PARTS, "checkpoints")}
IN_ONE = {"model": SINGLE["checkpoints"], "text_encoder": "auto", "vae": "auto"}
IN_PARTS = dict(zip(("model", "text_encoder", "vae"), SINGLE.values(), strict=False))


@pytest.fixture(scope="module")
def prompt(server: ComfyServer) -> dict:
    """The shipped workflow, with a short song and one step."""
    shipped = to_prompt(load_workflow(REPO / "workflows" / "01 Text to music.json"), server.object_info())
    return with_inputs(with_inputs(shipped, "AS15_Song", duration=1.0), "AS15_Sample", steps=1)


@pytest.fixture(scope="module")
def models(server: ComfyServer) -> Iterator[Path]:
    """A bundle of model folders, and the same networks as single files."""
    folder = server.base / "models"
    shutil.copytree(NANO, folder / "acestep" / "bundle")
    write_single_files(folder)
    (folder / "diffusion_models" / "another_model.safetensors").write_bytes(b"")
    (folder / "acestep" / "half").mkdir()  # an unfinished download: an index without its shards
    index = {"weight_map": {"decoder.norm_out.weight": "model-00001-of-00002.safetensors"}}
    (folder / "acestep" / "half" / "model.safetensors.index.json").write_text(json.dumps(index))
    yield folder
    shutil.rmtree(folder / "acestep" / "half")
    shutil.rmtree(folder / "acestep" / "bundle")
    for file in folder.rglob("*.safetensors"):  # only the files: ComfyUI's own loaders need the folders
        file.unlink()


def options(server: ComfyServer, widget: str) -> list[str]:
    return server.object_info()["AS15_LoadModel"]["input"]["required"][widget][1]["options"]


def test_an_empty_list_has_a_hint(server: ComfyServer, prompt: dict) -> None:
    first, hint = options(server, "model")
    assert first == "nano" and "models/acestep" in hint and "models/diffusion_models" in hint
    assert "models/text_encoders" in options(server, "text_encoder")[1] and "models/vae" in options(server, "vae")[1]
    with pytest.raises(PromptRejected) as refusal:
        server.play(with_inputs(prompt, "AS15_LoadModel", model=hint))
    assert "hint" in str(refusal.value) and "models/acestep" in str(refusal.value)


def test_dropdowns_list_existing_files(server: ComfyServer, models: Path) -> None:
    """ACE-Step's files come first. A folder appears only under its own part, an unfinished one nowhere."""
    assert options(server, "model") == [
        "nano",
        f"bundle/{NETWORK}",
        SINGLE["diffusion_models"],
        SINGLE["checkpoints"],
        "another_model.safetensors",
    ]
    assert options(server, "text_encoder") == [
        "auto",
        "bundle/Qwen3-Embedding-0.6B",
        SINGLE["text_encoders"],
        SINGLE["checkpoints"],
    ]
    assert options(server, "vae") == ["auto", "bundle/vae", SINGLE["vae"], SINGLE["checkpoints"]]


def test_a_folder_appears_once_its_file_is_complete(server: ComfyServer) -> None:
    """Some downloaders write a file in place, which keeps the time of its folder."""
    folder = server.base / "models" / "acestep" / "slow"
    weights = folder / "diffusion_pytorch_model.safetensors"
    shutil.copytree(NANO / "vae", folder)
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:1000])
        assert "slow" not in options(server, "vae")
        time = folder.stat().st_mtime_ns
        weights.write_bytes(content)
        assert folder.stat().st_mtime_ns == time
        assert "slow" in options(server, "vae")
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("model", "text_encoder", "vae"),
    [
        (f"bundle/{NETWORK}", "auto", "auto"),
        (f"bundle/{NETWORK}", "auto", SINGLE["checkpoints"]),
        (SINGLE["diffusion_models"], "auto", "auto"),
        (SINGLE["diffusion_models"], "bundle/Qwen3-Embedding-0.6B", SINGLE["vae"]),
        (SINGLE["checkpoints"], SINGLE["text_encoders"], "bundle/vae"),
    ],
)
def test_every_combination_of_files_works(
    server: ComfyServer, prompt: dict, models: Path, model: str, text_encoder: str, vae: str
) -> None:
    server.play(with_inputs(prompt, "AS15_LoadModel", model=model, text_encoder=text_encoder, vae=vae))


def song(server: ComfyServer, prompt: dict, **parts: str) -> np.ndarray:
    (file,) = server.play(with_inputs(prompt, "AS15_LoadModel", **parts)).files()
    return soundfile.read(io.BytesIO(server.fetch(file)))[0]


def test_a_checkpoint_equals_its_parts(server: ComfyServer, prompt: dict, models: Path) -> None:
    in_one = song(server, prompt, **IN_ONE)
    assert in_one.std() > 0
    assert np.array_equal(in_one, song(server, prompt, **IN_PARTS))


@pytest.fixture(scope="module")
def gguf_files(server: ComfyServer) -> Iterator[Path]:
    """nano as GGUF files in one folder, as acestep.cpp has them, and a file of another program."""
    folder = server.base / "models" / "acestep" / "cpp"
    parts = {"network": NETWORK, "text": "Qwen3-Embedding-0.6B", "vae": "vae", "planner": "acestep-5Hz-lm-nano"}
    silence = torch.load(NANO / NETWORK / "silence_latent.pt").float().transpose(1, 2)
    for part, name in parts.items():
        config = json.loads((NANO / name / "config.json").read_text("utf-8"))
        tokenizer = NANO / name if part in ("text", "planner") else None
        state = state_of(NANO / name) | ({"silence_latent": silence} if part == "network" else {})
        for quant in ("BF16", "Q8_0") if part == "network" else ("BF16",):
            write_gguf(folder / f"{name}-{quant}.gguf", part, state, config, quant, tokenizer)
    write_gguf(folder / "llama.gguf", "llama", {}, {})
    yield folder
    shutil.rmtree(folder)


def test_gguf_files_are_listed_by_their_kind(server: ComfyServer, gguf_files: Path) -> None:
    networks = [name for name in options(server, "model") if name.endswith(".gguf")]
    assert networks == [f"cpp/{NETWORK}-BF16.gguf", f"cpp/{NETWORK}-Q8_0.gguf"]
    assert [name for name in options(server, "vae") if name.endswith(".gguf")] == ["cpp/vae-BF16.gguf"]
    text_encoders = [name for name in options(server, "text_encoder") if name.endswith(".gguf")]
    assert text_encoders == ["cpp/Qwen3-Embedding-0.6B-BF16.gguf"]
    planners = server.object_info()["AS15_LoadPlanner"]["input"]["required"]["planner"][1]["options"]
    assert "cpp/acestep-5Hz-lm-nano-BF16.gguf" in planners and "cpp/llama.gguf" not in planners


def test_gguf_files_make_the_song_of_the_folder(server: ComfyServer, prompt: dict, gguf_files: Path) -> None:
    """The other parts are found beside the model, although other folders have some as well."""
    usual = song(server, prompt, model="nano")
    assert np.array_equal(song(server, prompt, model=f"cpp/{NETWORK}-BF16.gguf"), usual)
    quantised = song(server, prompt, model=f"cpp/{NETWORK}-Q8_0.gguf")
    assert 0 < np.abs(quantised - usual).max() and np.corrcoef(quantised[:, 0], usual[:, 0])[0, 1] > 0.9


def test_a_changed_file_is_loaded_again(server: ComfyServer, prompt: dict, models: Path) -> None:
    chosen = with_inputs(prompt, "AS15_LoadModel", model=f"bundle/{NETWORK}")
    loader = find(chosen, "AS15_LoadModel")
    server.play(chosen)
    assert loader in server.play(chosen).cached
    file = models / "acestep" / "bundle" / "vae" / "diffusion_pytorch_model.safetensors"
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert loader not in server.play(chosen).cached


def test_extra_model_paths(prompt: dict, tmp_path: Path) -> None:
    """Every category may have a folder of another name."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(NANO, elsewhere / "songs" / "mine")
    folders = {category: f"my_{category}" for category in SINGLE}
    write_single_files(elsewhere, **folders)
    config = tmp_path / "paths.yaml"
    lines = [f"  {category}: {folder}" for category, folder in {"acestep": "songs", **folders}.items()]
    config.write_text("\n".join(["shared:", f"  base_path: {elsewhere}", *lines]))
    comfy = ComfyServer(tmp_path / "comfyui", args=("--cpu", "--extra-model-paths-config", str(config)))
    comfy.install(REPO, "pack")
    with comfy:
        assert f"mine/{NETWORK}" in options(comfy, "model")
        comfy.play(with_inputs(prompt, "AS15_LoadModel", model=f"mine/{NETWORK}"))
        for widget, choice in IN_PARTS.items():
            assert {choice, SINGLE["checkpoints"]} <= set(options(comfy, widget))
        comfy.play(with_inputs(prompt, "AS15_LoadModel", **IN_ONE))
        comfy.play(with_inputs(prompt, "AS15_LoadModel", **IN_PARTS))
