"""Audio codes in files: saved to the output folder, loaded from the input folder."""

from __future__ import annotations

import json

import pytest

from .graph import find, load_workflow, to_prompt, with_all, with_inputs
from .server import REPO, ComfyServer, PromptRejected


@pytest.fixture(scope="module")
def prompt(server: ComfyServer) -> dict:
    """A short song with few steps, and its audio codes."""
    return with_all(with_all(coded_song(server), "AS15_Song", duration=6.0), "AS15_Sample", steps=2, seed=90)


def coded_song(server: ComfyServer) -> dict:
    """Return the first template with nodes that extract and save audio codes."""
    prompt = to_prompt(load_workflow(REPO / "workflows" / "01 Text to music.json"), server.object_info())
    model, latent = [find(prompt, "AS15_LoadModel"), 0], [find(prompt, "AS15_Sample"), 0]
    prompt["codes"] = {"class_type": "AS15_AudioCodes", "inputs": {"model": model, "latent": latent}}
    saved = {"codes": ["codes", 0], "song": [find(prompt, "AS15_Song"), 0], "filename_prefix": "codes/song"}
    prompt["save_codes"] = {"class_type": "AS15_SaveCodes", "inputs": saved}
    return prompt


def test_saved_codes_load_again(server: ComfyServer, prompt: dict) -> None:
    run = server.play(with_inputs(prompt, "AS15_SaveCodes", filename_prefix="codes/kept"))
    ((saved,),) = [output["codes"] for output in run.outputs.values() if "codes" in output]
    assert saved["subfolder"] == "codes" and saved["filename"].startswith("kept_")
    content = server.fetch(saved)
    (song,) = json.loads(content)["songs"]
    assert song["codes"].count("<|audio_code_") == 30
    song_node, _ = prompt[find(prompt, "AS15_SaveCodes")]["inputs"]["song"]
    assert song["caption"] == prompt[song_node]["inputs"]["caption"] and song["duration"] == 6

    (server.base / "input" / "mine.json").write_bytes(content)
    options = server.object_info()["AS15_LoadCodes"]["input"]["required"]["file"]
    assert "mine.json" in (options[0] if isinstance(options[0], list) else options[1]["options"])
    load = {"class_type": "AS15_LoadCodes", "inputs": {"file": "mine.json"}}
    view = {"class_type": "PreviewAny", "inputs": {"source": ["load", 0]}}
    shown = server.play({"load": load, "view": view}).outputs["view"]["text"]
    assert shown == [song["codes"]]


@pytest.mark.parametrize(
    "file", ["../secret.json", "/etc/passwd", "gone.json", "mine.safetensors", "", "a\0.json", "a" * 999]
)
def test_files_outside_of_the_input_folder(server: ComfyServer, file: str) -> None:
    (server.base / "secret.json").write_text("{}")
    load = {"class_type": "AS15_LoadCodes", "inputs": {"file": file}}
    view = {"class_type": "PreviewAny", "inputs": {"source": ["load", 0]}}
    with pytest.raises(PromptRejected) as caught:
        server.queue({"load": load, "view": view})
    assert "input folder" in caught.value.node_errors["load"][0]


@pytest.mark.parametrize(
    "prefix", ["../song", "/etc/song", "codes/../../song", "a\0b", "long" * 70 + "/song", "long" * 70]
)
def test_prefixes_outside_of_the_output_folder(server: ComfyServer, prefix: str) -> None:
    text = {"class_type": "PrimitiveString", "inputs": {"value": "1, 2, 3"}}
    save = {"class_type": "AS15_SaveCodes", "inputs": {"codes": ["text", 0], "filename_prefix": prefix}}
    error = server.run({"text": text, "save": save}).error
    assert "filename_prefix" in error or "too long" in error
    assert "Traceback" not in error and "\n" not in error


def test_a_file_without_codes(server: ComfyServer) -> None:
    (server.base / "input" / "words.txt").write_text("la la la")
    load = {"class_type": "AS15_LoadCodes", "inputs": {"file": "words.txt"}}
    view = {"class_type": "PreviewAny", "inputs": {"source": ["load", 0]}}
    error = server.run({"load": load, "view": view}).error
    assert "audio codes: cannot parse 'la la la'" in error and "\n" not in error
