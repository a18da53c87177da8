"""Every shipped workflow fits the live schemas, has a thumbnail and a note, and runs in the real server."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from safetensors.torch import load

from .graph import find, load_workflow, to_prompt, upstream, with_all, with_inputs, with_node, without
from .server import REPO, ComfyServer
from .test_previews import messages_of, notes
from .workflow_check import problems

WORKFLOWS = sorted((REPO / "workflows").glob("*.json"))
SECONDS = 6.0  # above the shortest length that models run at, so that KSampler draws the same noise
SAMPLERS = ("AS15_Sample", "KSampler")
PLAYERS = ("SaveAudio", "PreviewAudio")
WATCHERS = ("PreviewAudio", "PreviewAny", "AS15_SaveCodes")
PASSED_ON = {"AS15_Timbre": "conditioning", "AS15_Morph": "target"}  # the input that replaces the output of these
ADDED = {"extend": 2.0}  # seconds beyond the song
SHORTER = {30.0: SECONDS, 45.0: SECONDS + ADDED["extend"]}  # for each shipped duration
# Notes on nano and on short songs, and token rates.
UNAVOIDABLE = re.compile(r".*a miniature.*|.*shorter than any song.*|\d+ tokens, .*|")
KEEPING = {"repaint", "extend"}  # a part keeps its level
START, END = 2.0, 4.0  # of the repainted part
RATE = 48_000
EDGE = RATE // 20  # no crossfade is longer


def path_of(name: str) -> Path:
    return REPO / "workflows" / f"{name}.json"


def quick_prompt(server: ComfyServer, name: str, seed: int) -> dict[str, dict]:
    """Return a shipped workflow as a prompt, with a short song and few steps.

    Each test needs its own seed, because cached outputs are not listed.
    """
    info = server.object_info()
    prompt = to_prompt(load_workflow(path_of(name)), info)
    for key, node in prompt.items():
        if node["class_type"] == "AS15_Song":
            prompt = with_node(prompt, key, duration=SHORTER[node["inputs"]["duration"]])
    prompt = with_all(prompt, "AS15_Write", duration=SECONDS)
    for sampler in SAMPLERS:
        prompt = with_all(prompt, sampler, steps=2, seed=seed)
    prompt = with_all(prompt, "AS15_Repaint", start=START, end=END)
    return with_all(prompt, "AS15_Extend", after=ADDED["extend"])


def songs(server: ComfyServer, prompt: dict[str, dict]) -> list[np.ndarray]:
    """Return the audio of each player of the prompt, in the order of their ids."""
    return audio_of(server, prompt, server.play(prompt).outputs)


def audio_of(server: ComfyServer, prompt: dict[str, dict], outputs: dict[str, dict]) -> list[np.ndarray]:
    players = sorted((key for key, node in prompt.items() if node["class_type"] in PLAYERS), key=int)
    return [listen(server, file) for key in players for file in outputs[key]["audio"]]


def avoidable(messages: list[dict | bytes], prompt: dict[str, dict]) -> set[tuple[str, str]]:
    """Return (node class, sentence) of the notes of one run that another input would avoid."""
    lines = [(prompt[node]["class_type"], line) for node, text in notes(messages) for line in text.splitlines()]
    return {(node, line) for node, line in lines if not UNAVOIDABLE.fullmatch(line)}


def listen(server: ComfyServer, file: dict) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(server.fetch(file)), always_2d=True)
    assert rate == 48_000
    return samples


def saved(server: ComfyServer, prompt: dict[str, dict]) -> np.ndarray:
    """Return the saved audio, without other players, whose outputs may be cached and not listed."""
    (song,) = songs(server, {key: node for key, node in prompt.items() if node["class_type"] not in WATCHERS})
    return song


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_it_fits_the_live_schemas(server: ComfyServer, workflow: Path) -> None:
    info = server.object_info()
    assert not problems(load_workflow(workflow), info)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_it_has_a_thumbnail_and_a_note(workflow: Path) -> None:
    with Image.open(workflow.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG"
        assert picture.width == picture.height >= 256
        assert len(picture.resize((32, 32)).getcolors(32 * 32)) > 100, "the thumbnail is empty"
    notes = [node for node in load_workflow(workflow)["nodes"] if node["type"] == "MarkdownNote"]
    assert [note["title"] for note in notes] == ["Read me first"]


def test_no_thumbnail_is_left_over() -> None:
    pictures = {path.stem for path in (REPO / "workflows").iterdir() if path.suffix != ".json"}
    assert pictures == {path.stem for path in WORKFLOWS}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_node_is_used(server: ComfyServer, workflow: Path) -> None:
    """Every node contributes to an output node."""
    info = server.object_info()
    prompt = to_prompt(load_workflow(workflow), info)
    used = {key for key, node in prompt.items() if info[node["class_type"]]["output_node"]}
    waiting = list(used)
    while waiting:
        inputs = prompt[waiting.pop()]["inputs"].values()
        new = {value[0] for value in inputs if isinstance(value, list)} - used
        used |= new
        waiting += new
    assert used == prompt.keys()


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
        (lambda w: set_value(w, "AS15_LoadModel", 0, "acestep-v15-nowhere"), "not allowed for model"),
        (lambda w: set_value(w, "AS15_Song", 3, 0.5), "not allowed for duration"),
        (lambda w: set_value(w, "AS15_Sample", 0, 1.5), "not allowed for seed"),
        (lambda w: set_value(w, "AS15_Sample", 1, "sometimes"), "not allowed for control after generate"),
        (lambda w: set_value(w, "AS15_Decode", 0, "yes"), "not allowed for normalize"),
        (lambda w: set_value(w, "SaveAudio", 0, "/home/me/song"), "absolute path"),
        (lambda w: set_value(w, "SaveAudio", 0, "C:\\songs\\mine"), "absolute path"),
        (lambda w: w["links"].pop(), "do not agree"),
        (lambda w: w["links"][0].__setitem__(4, 1), "inputs and the table of links do not agree"),
        (lambda w: w["links"][0].__setitem__(5, "CLIP"), "is called CLIP"),
        (lambda w: w.update(last_link_id=1), "id that is taken"),
        (lambda w: w["extra"].update(linkExtensions=[{"id": 1, "parentId": 9}]), "does not know it"),
        (lambda w: w["nodes"][2].update(pos=[0, 0]), "runs backwards"),
        (lambda w: w["nodes"][5].update(pos=[3000, 0]), "too wide"),
        (lambda w: w["nodes"][5].update(pos=[1540, 3000]), "too high"),
        (lambda w: w["nodes"][1].update(pos=[60, 400]), "too near"),
        (lambda w: w["groups"].append({"title": "A part", "bounding": [40, 0, 300, 900]}), "sticks out of the group A"),
    ],
)  # fmt: skip
def test_mistakes_are_found(server: ComfyServer, harm: Callable[[dict], object], complaint: str) -> None:
    broken = copy.deepcopy(load_workflow(path_of("text_to_music")))
    harm(broken)
    assert any(complaint in problem for problem in problems(broken, server.object_info()))


# -- songs ------------------------------------------------------------------------------------------------------------


def test_notes_are_found(server: ComfyServer) -> None:
    prompt = with_all(quick_prompt(server, "text_to_music", 99), "AS15_Sample", guidance=7.0)
    ((node, sentence),) = avoidable(messages_of(server, prompt), prompt)
    assert node == "AS15_Sample" and "guidance 7" in sentence


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_it_runs_without_notes(server: ComfyServer, workflow: Path) -> None:
    """Every input of a shipped workflow has an effect."""
    seed = 100 + WORKFLOWS.index(workflow)
    prompt = with_all(quick_prompt(server, workflow.stem, seed), "AS15_Plan", seed=seed)
    messages = messages_of(server, prompt)
    assert not avoidable(messages, prompt)
    done = [message["data"] for message in messages if isinstance(message, dict) and message["type"] == "executed"]
    played = audio_of(server, prompt, {data["node"]: data["output"] for data in done})
    assert played
    for song in played:
        seconds = SECONDS + (ADDED.get(workflow.stem, 0) if song is played[-1] else 0)
        assert song.shape == (seconds * RATE, 2)
        assert np.isfinite(song).all()
        assert song.std() > 1e-3
        if workflow.stem in KEEPING and song is played[-1]:
            assert np.abs(song).max() <= 1
        else:
            assert 0.88 < np.abs(song).max() < 0.9  # -1 dBFS


@pytest.mark.parametrize(
    ("name", "seed", "generated"),
    [("repaint", 60, slice(int(START * RATE), int(END * RATE))), ("extend", 61, slice(int(SECONDS * RATE), None))],
)
def test_the_kept_part_equals_the_source(server: ComfyServer, name: str, seed: int, generated: slice) -> None:
    song, result = songs(server, quick_prompt(server, name, seed))
    kept = np.ones(len(result), bool)
    kept[max(0, generated.start - EDGE) : None if generated.stop is None else generated.stop + EDGE] = False
    padded = np.pad(song, ((0, len(result) - len(song)), (0, 0)))
    assert difference(padded[kept], result[kept]) == 0
    assert difference(padded[generated], result[generated]) > 1e-2


@pytest.mark.parametrize(
    ("name", "task", "inputs"),
    [
        ("cover", "AS15_Cover", {}),
        ("audio_codes", "AS15_Cover", {}),
        ("stems", "AS15_Stems", {}),
        ("stems", "AS15_Stems", {"operation": "add"}),
        ("stems", "AS15_Stems", {"operation": "complete", "more_tracks": "drums, bass"}),
        ("timbre", "AS15_Timbre", {}),
        ("morph", "AS15_Morph", {}),
    ],
    ids=["cover", "audio_codes", "extract", "add", "complete", "timbre", "morph"],
)
def test_task_and_source_change_the_song(server: ComfyServer, name: str, task: str, inputs: dict) -> None:
    """The result differs from the source, from the song without the task, and from that of another source."""
    prompt = with_inputs(quick_prompt(server, name, seed=63), task, **inputs)
    key, decoder = find(prompt, task), upstream(prompt, find(prompt, "SaveAudio"), "AS15_Decode")
    source = upstream(prompt, key, "AS15_Sample")
    song = upstream(prompt, source, "AS15_Song")
    result = saved(server, prompt)
    least = 1e-2
    if name == "timbre":  # its effect on nano is small, but the same prompt gives the same bits
        least = 1e-4
        server.unload_models(forget=True)
        assert difference(result, saved(server, prompt)) == 0
    for other in (
        with_node(prompt, decoder, latent=[source, 0]),
        without(prompt, key, PASSED_ON.get(task)),
        with_node(with_node(prompt, source, seed=64), song, caption="hard techno, distorted kick drum", lyrics=""),
    ):
        assert difference(result, saved(server, other)) > least


def test_the_retake_variance_sets_the_distance(server: ComfyServer) -> None:
    prompt = quick_prompt(server, "retake", seed=65)
    take, near = songs(server, prompt)
    retake = upstream(prompt, find(prompt, "SaveAudio"), "AS15_Sample")
    same, far = (saved(server, with_node(prompt, retake, retake_variance=variance)) for variance in (0.0, 1.0))
    assert difference(take, same) < 1e-3 and difference(take, near) > 1e-2
    assert np.linalg.norm(near - take) < np.linalg.norm(far - take)


def test_a_batch_of_songs_equals_each_song(server: ComfyServer) -> None:
    prompt = quick_prompt(server, "batch_of_songs", seed=80)
    second = prompt[find(prompt, "AS15_BatchSongs")]["inputs"]["song_2"]
    batched = songs(server, prompt)
    alone, *_ = songs(server, with_inputs(prompt, "AS15_Sample", conditioning=second, seed=81))
    assert len(batched) == 3
    assert [difference(alone, song) < 1e-3 for song in batched] == [False, True, False]


def test_guidance_changes_the_song_of_a_base_model(server: ComfyServer) -> None:
    prompt = quick_prompt(server, "text_to_music_base", seed=20)
    own, seven, off = (songs(server, with_inputs(prompt, "AS15_Sample", guidance=g))[0] for g in (0.0, 7.0, 1.0))
    assert difference(own, seven) < 1e-3
    assert difference(own, off) > 1e-2


def test_ksampler_equals_sample_song(server: ComfyServer) -> None:
    prompt = quick_prompt(server, "native_ksampler", seed=30)
    ksampler = find(prompt, "KSampler")
    inputs = prompt[ksampler]["inputs"]
    ours = {"batch_size": 1, "guidance": 0.0, "shift": 0.0, "solver": "euler", "guidance_method": "cfg"}
    ours |= {"model": inputs["model"], "conditioning": inputs["positive"]}
    ours |= {"seed": inputs["seed"], "steps": inputs["steps"]}
    swapped = {**prompt, ksampler: {"class_type": "AS15_Sample", "inputs": ours}}
    (native,), (sampled,) = songs(server, prompt), songs(server, swapped)
    assert difference(native, sampled) < 1e-3


def test_a_batch_of_seeds_equals_each_seed(server: ComfyServer) -> None:
    prompt = quick_prompt(server, "batch_of_seeds", seed=40)
    takes = songs(server, prompt)
    assert len(takes) == 4
    for i, take in enumerate(takes):
        assert all(difference(take, other) > 0.1 for other in takes[:i])
    for i, take in enumerate(takes):
        (single,) = songs(server, quick_prompt(server, "text_to_music", seed=40 + i))
        assert difference(take, single) < 1e-3


def test_an_empty_song_has_its_duration_and_batch_size(server: ComfyServer) -> None:
    prompt = with_inputs(quick_prompt(server, "native_ksampler", seed=50), "AS15_Song", duration=4.2)
    prompt = with_inputs(prompt, "AS15_EmptyLatent", batch_size=3)
    empty = [find(prompt, "AS15_EmptyLatent"), 0]
    save = {"class_type": "SaveLatent", "inputs": {"samples": empty, "filename_prefix": "latents/empty"}}
    run = server.play({**{key: prompt[key] for key in (empty[0], find(prompt, "AS15_Song"))}, "save": save})
    latent = load(server.fetch(run.outputs["save"]["latents"][0]))["latent_tensor"]
    assert latent.shape == (3, 64, 105)
    assert not latent.any()
