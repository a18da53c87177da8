"""Download Model: one run downloads a release from a local server, and a song plays with it."""

from __future__ import annotations

from pathlib import Path

from acestep_core.checkpoints.catalog import COMFY_REPO, MAIN_REPO, NANO, RELEASES
from tests.support.hub import Hub, serve_hub
from tests.support.single_files import file_name, write_single_files

from .graph import load_workflow, to_prompt, with_inputs
from .server import REPO, ComfyServer

RELEASE = RELEASES["comfy-turbo"]


def released(folder: Path) -> dict[str, dict[str, bytes]]:
    """Return the repositories of the release, with the weights of nano."""
    write_single_files(folder)
    files = {}
    for name in (RELEASE.name, "comfy-vae", "comfy-text-encoder"):
        category = Path(RELEASES[name].target).parent.name
        files[RELEASES[name].files[0]] = (folder / category / file_name(category)).read_bytes()
    text_encoder = NANO / "Qwen3-Embedding-0.6B"
    tokenizer = {f"{text_encoder.name}/{path.name}": path.read_bytes() for path in text_encoder.glob("*.json")}
    return {COMFY_REPO: files, MAIN_REPO: tokenizer}


def test_one_run_downloads_the_model_and_plays_the_song(tmp_path: Path) -> None:
    with serve_hub(released(tmp_path / "released")) as endpoint:
        comfy = ComfyServer(tmp_path / "comfyui", args=("--cpu",), environment={"HF_ENDPOINT": endpoint})
        comfy.install(REPO, "pack")
        with comfy:
            assert (comfy.base / "models" / "acestep").is_dir()  # made at start
            details = comfy.object_info()["AS15_Download"]["input"]["required"]["release"][1]["details"]
            assert "6.3 GB to download" in details[RELEASE.name]
            shipped = to_prompt(load_workflow(REPO / "workflows" / "01 Text to music.json"), comfy.object_info())
            prompt = with_inputs(with_inputs(shipped, "AS15_Song", duration=1.0), "AS15_Sample", steps=1)
            prompt["download"] = {"class_type": "AS15_Download", "inputs": {"release": RELEASE.name}}
            prompt = with_inputs(prompt, "AS15_LoadModel", model=["download", 0])
            run = comfy.play(prompt)
            assert run.files() and "Installed" in run.outputs["download"]["text"][0]
            assert (comfy.base / "models" / RELEASE.target).is_file()
            assert run.outputs["download"]["downloaded"] == [True]
            Hub.served.clear()  # files that are there are not requested again
            assert comfy.play(with_inputs(prompt, "AS15_Sample", seed=8)).files() and not Hub.served
