"""Bad input gives one sentence, on the node or before the run, and the queue continues."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from acestep_core.checkpoints.catalog import NANO
from tests.support.layouts import save
from tests.support.single_files import state_of

from .graph import find, load_workflow, to_prompt, with_inputs
from .server import REPO, ComfyServer, PromptRejected


@pytest.fixture(scope="module")
def prompt(server: ComfyServer) -> dict:
    shipped = to_prompt(load_workflow(REPO / "workflows" / "01 Text to music.json"), server.object_info())
    return with_inputs(shipped, "AS15_Song", duration=1.0)


@pytest.fixture(autouse=True)
def queue_continues(server: ComfyServer, prompt: dict) -> Iterator[None]:
    yield
    server.play(prompt)


def rejection(server: ComfyServer, prompt: dict, class_type: str) -> str:
    """Return the error of a node before the run."""
    with pytest.raises(PromptRejected) as caught:
        server.queue(prompt)
    details = caught.value.node_errors[find(prompt, class_type)]
    return details[0]


@pytest.mark.parametrize("duration", [-3, 601])
def test_duration_out_of_range(server: ComfyServer, prompt: dict, duration: float) -> None:
    sentence = rejection(server, with_inputs(prompt, "AS15_Song", duration=duration), "AS15_Song")
    assert "duration" in sentence and "600" in sentence and str(duration) in sentence


def test_duration_that_is_not_a_number(server: ComfyServer, prompt: dict) -> None:
    assert "nan" in rejection(server, with_inputs(prompt, "AS15_Song", duration="nan"), "AS15_Song")


@pytest.mark.parametrize(
    "path",
    ["../secret", "acestep/../../secret", "acestep/..\\..\\secret", "/etc", "acestep//etc", "acestep/C:\\secret",
     "C:/x", "loras/x.safetensors", "", "acestep/", "acestep"],
)  # fmt: skip
@pytest.mark.parametrize("widget", ["model", "text_encoder", "vae"])
def test_paths_outside_the_model_folders(server: ComfyServer, prompt: dict, widget: str, path: str) -> None:
    sentence = rejection(server, with_inputs(prompt, "AS15_LoadModel", **{widget: path}), "AS15_LoadModel")
    assert "model folders" in sentence


def test_a_missing_model(server: ComfyServer, prompt: dict) -> None:
    sentence = rejection(server, with_inputs(prompt, "AS15_LoadModel", model="gone"), "AS15_LoadModel")
    assert "'gone'" in sentence and "acestep" in sentence


def test_a_missing_text_encoder(server: ComfyServer, prompt: dict) -> None:
    alone = server.base / "models" / "diffusion_models" / "alone.safetensors"
    save(alone, state_of(NANO / "acestep-v15-nano"))
    lonely = with_inputs(prompt, "AS15_LoadModel", model="diffusion_models/alone.safetensors")
    try:
        sentence = rejection(server, lonely, "AS15_LoadModel")
    finally:
        alone.unlink()
    assert "qwen_0.6b_ace15.safetensors" in sentence and "models/text_encoders" in sentence


def test_a_truncated_file(server: ComfyServer, prompt: dict) -> None:
    broken = server.base / "models" / "vae" / "broken.safetensors"
    broken.parent.mkdir(exist_ok=True)
    broken.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    error = server.run(with_inputs(prompt, "AS15_LoadModel", vae="vae/broken.safetensors")).error
    broken.unlink()
    assert "broken.safetensors" in error and "truncated" in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("node", "change", "word"),
    [
        ("AS15_Song", {"bpm": 7}, "300"),
        ("AS15_Song", {"language": "Klingon"}, "'Klingon'"),
        ("AS15_Song", {"key": "H dur"}, "key"),
        ("AS15_Song", {"time_signature": "5/4"}, "'5/4'"),
        ("AS15_Sample", {"solver": "magic"}, "solver"),
        ("AS15_Sample", {"guidance_method": "magic"}, "guidance method"),
        ("AS15_LoadModel", {"variant": "magic"}, "variant"),
        ("AS15_LoadModel", {"dtype": "magic"}, "dtype"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_values(server: ComfyServer, prompt: dict, node: str, change: dict, word: str) -> None:
    """Later versions of ComfyUI refuse values outside of a list themselves, before the run."""
    try:
        sentence = server.run(with_inputs(prompt, node, **change)).error
    except PromptRejected as rejected:
        sentence = rejected.node_errors[find(prompt, node)][0]
        word = str(next(iter(change.values())))
    assert word in sentence


def test_silent_audio(server: ComfyServer, prompt: dict) -> None:
    graph = {
        "1": prompt[find(prompt, "AS15_LoadModel")],
        "2": {"class_type": "EmptyAudio", "inputs": {"duration": 2.0, "sample_rate": 44100, "channels": 2}},
        "3": {"class_type": "AS15_EncodeAudio", "inputs": {"vae": ["1", 2], "audio": ["2", 0]}},
        "4": {"class_type": "SaveLatent", "inputs": {"samples": ["3", 0], "filename_prefix": "latents/x"}},
    }
    error = server.run(graph).error
    assert "silent" in error and "\n" not in error


def test_latents_of_an_image(server: ComfyServer, prompt: dict) -> None:
    graph = {
        "1": prompt[find(prompt, "AS15_LoadModel")],
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "AS15_Decode", "inputs": {"vae": ["1", 2], "latent": ["2", 0], "normalize": True}},
        "4": {"class_type": "PreviewAudio", "inputs": {"audio": ["3", 0]}},
    }
    assert server.run(graph).error.startswith("latent")


def with_edit(prompt: dict[str, dict], class_type: str, **inputs: object) -> dict[str, dict]:
    """Return the prompt with an edit node, whose source is Empty Song if `inputs` name no other."""
    song, encode = find(prompt, "AS15_Song"), find(prompt, "AS15_Encode")
    source = {"class_type": "AS15_EmptyLatent", "inputs": {"song": [song, 0], "batch_size": 1}}
    recording = {"class_type": "LoadAudio", "inputs": {"audio": "ACE-Step example.ogg"}}
    edit = {"class_type": class_type, "inputs": {"mode": "balanced", "mode_strength": 0.5, **inputs}}
    encoded = {**prompt[encode], "inputs": {**prompt[encode]["inputs"], "task": ["edit", 0]}}
    return {**prompt, "source": source, "recording": recording, "edit": edit, encode: encoded}


LATENT = {"latent": ["source", 0]}
AUDIO = {"audio": ["recording", 0], "vae": ["1", 2]}  # of Load Model
STEMS = {"operation": "add", "track": "vocals", "more_tracks": ""}


@pytest.mark.parametrize(
    ("class_type", "inputs", "words"),
    [
        ("AS15_Repaint", {"start": 4, "end": 2, "more_ranges": "", **AUDIO}, "end: must be after start, got 4 to 2"),
        ("AS15_Repaint", {"start": 0, "end": 700, "more_ranges": "", **AUDIO}, "end: must be from 0 to 600"),
        ("AS15_Repaint", {"start": 0, "end": 1, "more_ranges": "soon", **AUDIO}, "more_ranges: range must be"),
        ("AS15_Repaint", {"start": 0, "end": 1, "more_ranges": "5-4", **AUDIO}, "more_ranges: the end must be after"),
        ("AS15_Repaint", {"start": 0, "end": 1, "more_ranges": ""}, "audio or latent: missing"),
        ("AS15_Extend", {"after": 1, "before": 0, "overlap": 0}, "audio or latent: missing"),
        ("AS15_Extend", {"after": 1, "before": 0, "overlap": 0, "mode": "bold", **LATENT}, "mode: must be"),
        ("AS15_Stems", {**STEMS, "start": 4, "end": 2, **AUDIO}, "end: must be after start"),
        ("AS15_Stems", {**STEMS, "operation": "remove", "start": 0, "end": 0, **LATENT}, "operation: must be extract"),
        (
            "AS15_Cover",
            {"strength": 1.0, "noise_strength": 0.0, "use_codes": True, "codes": ""},
            "audio or latent: missing",
        ),
    ],
)
def test_edits_that_cannot_work(server: ComfyServer, prompt: dict, class_type: str, inputs: dict, words: str) -> None:
    assert words in rejection(server, with_edit(prompt, class_type, **inputs), class_type)


def test_ranges_that_do_not_count(server: ComfyServer, prompt: dict) -> None:
    """An operation on the whole song starts with seconds that are no range. An empty source stops it later."""
    ignored = {**STEMS, "operation": "extract", "start": 4, "end": 2, **LATENT}
    assert "empty" in server.run(with_edit(prompt, "AS15_Stems", **ignored)).error
    masked = {"start": 4, "end": 2, "more_ranges": "", **LATENT}  # a latent may bring a mask instead of the seconds
    assert "empty" in server.run(with_edit(prompt, "AS15_Repaint", **masked)).error
