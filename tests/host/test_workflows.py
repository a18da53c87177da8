"""Every shipped workflow fits the live schemas, has a picture and a note, and makes a song in the real server."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from safetensors.torch import load

from .graph import find, load_workflow, to_prompt, with_inputs
from .server import REPO, ComfyServer
from .workflow_check import problems

WORKFLOWS = sorted((REPO / "workflows").glob("*.json"))
SECONDS = 6.0  # above the shortest that a model is sampled at, so that KSampler draws the same noise
SAMPLERS = ("AS15_Sample", "KSampler")
PLAYERS = ("SaveAudio", "PreviewAudio")


def path_of(name: str) -> Path:
    return REPO / "workflows" / f"{name}.json"


def hurried(server: ComfyServer, name: str, seed: int) -> dict[str, dict]:
    """A shipped workflow as a prompt, for a song of a few seconds made in a few steps.

    A seed that no other test has: what comes from the cache is not listed among the outputs.
    """
    prompt = to_prompt(load_workflow(path_of(name)), server.object_info())
    (sampler,) = {node["class_type"] for node in prompt.values()} & set(SAMPLERS)
    return with_inputs(with_inputs(prompt, "AS15_Song", duration=SECONDS), sampler, steps=2, seed=seed)


def songs(server: ComfyServer, prompt: dict[str, dict]) -> list[np.ndarray]:
    """What each player of the prompt plays, in the order of their ids."""
    run = server.play(prompt)
    players = sorted((key for key, node in prompt.items() if node["class_type"] in PLAYERS), key=int)
    return [listen(server, file) for key in players for file in run.outputs[key]["audio"]]


def listen(server: ComfyServer, file: dict) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(server.fetch(file)), always_2d=True)
    assert rate == 48_000
    return samples


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_it_fits_the_live_schemas(server: ComfyServer, workflow: Path) -> None:
    assert not problems(load_workflow(workflow), server.object_info())


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_it_has_a_picture_and_a_note(workflow: Path) -> None:
    with Image.open(workflow.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG"
        assert picture.width == picture.height >= 256
        assert len(picture.resize((32, 32)).getcolors(32 * 32)) > 100, "the picture shows nothing"
    notes = [node for node in load_workflow(workflow)["nodes"] if node["type"] == "MarkdownNote"]
    assert [note["title"] for note in notes] == ["Read me first"]


def test_no_picture_is_left_over() -> None:
    pictures = {path.stem for path in (REPO / "workflows").iterdir() if path.suffix != ".json"}
    assert pictures == {path.stem for path in WORKFLOWS}


def rename(workflow: dict, old: str, new: str) -> None:
    (node,) = [node for node in workflow["nodes"] if node["type"] == old]
    node["type"] = new


def set_value(workflow: dict, node_type: str, index: int, value: object) -> None:
    (node,) = [node for node in workflow["nodes"] if node["type"] == node_type]
    node["widgets_values"][index] = value


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda w: rename(w, "AS15_Sample", "AS15_Sampel"), "does not exist"),
        (lambda w: w["nodes"][3]["inputs"][0].update(name="modell"), "has the inputs"),
        (lambda w: w["nodes"][3]["outputs"][0].update(type="IMAGE"), "has the outputs"),
        (lambda w: w["nodes"][0].update(inputs=[{"name": "steps", "type": "INT", "widget": {"name": "steps"},
                                                 "link": None}]), "has no widget steps"),
        (lambda w: w["nodes"][4]["inputs"][1].update(link=None), "nothing is connected to latent"),
        (lambda w: w["nodes"][3]["widgets_values"].pop(), "values for the widgets"),
        (lambda w: set_value(w, "AS15_LoadModel", 0, "acestep-v15-nowhere"), "nothing for model"),
        (lambda w: set_value(w, "AS15_Song", 3, 0.5), "nothing for duration"),
        (lambda w: set_value(w, "AS15_Sample", 0, 1.5), "nothing for seed"),
        (lambda w: set_value(w, "AS15_Sample", 1, "sometimes"), "nothing for control after generate"),
        (lambda w: set_value(w, "AS15_Decode", 0, "yes"), "nothing for normalize"),
        (lambda w: set_value(w, "SaveAudio", 0, "/home/me/song"), "absolute path"),
        (lambda w: set_value(w, "SaveAudio", 0, "C:\\songs\\mine"), "absolute path"),
        (lambda w: w["links"].pop(), "do not agree"),
        (lambda w: w["links"][0].__setitem__(4, 1), "inputs and the table of links do not agree"),
        (lambda w: w["links"][0].__setitem__(5, "CLIP"), "is called CLIP"),
        (lambda w: w.update(last_link_id=1), "id that is taken"),
        (lambda w: w["extra"].update(linkExtensions=[{"id": 1, "parentId": 9}]), "does not know it"),
        (lambda w: w["nodes"][2].update(pos=[0, 0]), "runs backwards"),
        (lambda w: w["nodes"][5].update(pos=[3000, 0]), "too wide"),
    ],
)  # fmt: skip
def test_a_fault_would_be_seen(server: ComfyServer, harm: Callable[[dict], object], complaint: str) -> None:
    broken = copy.deepcopy(load_workflow(path_of("text_to_music")))
    harm(broken)
    assert any(complaint in problem for problem in problems(broken, server.object_info()))


# -- songs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_it_makes_a_song(server: ComfyServer, workflow: Path) -> None:
    heard = songs(server, hurried(server, workflow.stem, seed=10))
    assert heard
    for song in heard:
        assert song.shape == (SECONDS * 48_000, 2)
        assert np.isfinite(song).all()
        assert song.std() > 1e-3
        assert 0.88 < np.abs(song).max() < 0.9  # -1 dBFS


def test_guidance_is_heard_in_the_one_for_base(server: ComfyServer) -> None:
    prompt = hurried(server, "text_to_music_base", seed=20)
    own, seven, off = (songs(server, with_inputs(prompt, "AS15_Sample", guidance=g))[0] for g in (0.0, 7.0, 1.0))
    assert difference(own, seven) < 1e-3
    assert difference(own, off) > 1e-2


def test_ksampler_makes_the_song_of_sample_song(server: ComfyServer) -> None:
    prompt = hurried(server, "native_ksampler", seed=30)
    ksampler = find(prompt, "KSampler")
    asked = prompt[ksampler]["inputs"]
    ours = {"batch_size": 1, "guidance": 0.0, "shift": 0.0, "solver": "euler", "guidance_method": "cfg"}
    ours |= {"model": asked["model"], "conditioning": asked["positive"], "seed": asked["seed"], "steps": asked["steps"]}
    swapped = {**prompt, ksampler: {"class_type": "AS15_Sample", "inputs": ours}}
    (native,), (sampled,) = songs(server, prompt), songs(server, swapped)
    assert difference(native, sampled) < 1e-3


def test_four_seeds_are_four_songs_each_as_if_made_alone(server: ComfyServer) -> None:
    prompt = hurried(server, "batch_of_seeds", seed=40)
    takes = songs(server, prompt)
    assert len(takes) == 4
    for i, take in enumerate(takes):
        assert all(difference(take, other) > 0.1 for other in takes[:i])
    for i, take in enumerate(takes):
        (single,) = songs(server, hurried(server, "text_to_music", seed=40 + i))
        assert difference(take, single) < 1e-3


def test_an_empty_song_has_room_for_every_second_and_take(server: ComfyServer) -> None:
    prompt = with_inputs(hurried(server, "native_ksampler", seed=50), "AS15_Song", duration=4.2)
    prompt = with_inputs(prompt, "AS15_EmptyLatent", batch_size=3)
    room = [find(prompt, "AS15_EmptyLatent"), 0]
    save = {"class_type": "SaveLatent", "inputs": {"samples": room, "filename_prefix": "latents/empty"}}
    run = server.play({**{key: prompt[key] for key in (room[0], find(prompt, "AS15_Song"))}, "save": save})
    latent = load(server.fetch(run.outputs["save"]["latents"][0]))["latent_tensor"]
    assert latent.shape == (3, 64, 105)
    assert not latent.any()
