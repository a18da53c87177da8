"""Every shipped workflow runs in the real server, and its songs are what its note says."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.torch import load

from .graph import find, load_workflow, to_prompt, with_all, with_inputs, with_node, without
from .server import REPO, ComfyServer
from .test_previews import messages_of, notes

WORKFLOWS = sorted((REPO / "workflows").glob("*.json"))
APPS = [path for path in WORKFLOWS if path.stem.endswith(".app")]
# Real models are not there, and the graphs of the apps are those of templates.
RUNNABLE = [path for path in WORKFLOWS if path not in APPS and path.stem[:2] not in ("02", "03")]
SECONDS = 6.0  # above the shortest length that models run at, so that KSampler draws the same noise
RECORDING = REPO / "workflows" / "ACE-Step example.ogg"
RECORDING_SECONDS = 12.0
ADDED = 8.0  # seconds that Extend adds
# Seconds of the song where a source or the duration of the template sets them.
DURATIONS = dict.fromkeys(
    ["06 Cover", "07 Repaint", "09 Stems", "11 Morph", "12 Listen and remix", "21 Stems to files", "22 Mix stems"],
    RECORDING_SECONDS,
)
DURATIONS["08 Extend"] = RECORDING_SECONDS + ADDED
SHIPPED = 30.0  # seconds of a song without a source
SAMPLERS = ("AS15_Sample", "KSampler")
PASSED_ON = {"AS15_Timbre": "conditioning", "AS15_Morph": "target"}  # the input that replaces the output of these
# Notes on nano, on short songs, on the values of auto and on what a LoRA changes, token rates, and places by name.
UNAVOIDABLE = re.compile(
    r".*a miniature.*|.*: LoRA rank .*|.*shorter than any song.*|auto: .*|\d+ tokens, .*|"
    r"lyrics: about \d+ syllables .*|"  # in few seconds
    r"where: .* seconds"
)
# By another rule than that of the peak.
LEVELLED = {"07 Repaint", "08 Extend", "20 Finish and save", "21 Stems to files", "22 Mix stems"}
BATCHES = {"14 Batch of songs": 2, "21 Stems to files": 4}  # songs of one player
PLAYER = "AS15_SaveSong"
START, END = 4.0, 8.0  # of the repainted part
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
        if node["class_type"] == "AS15_Song" and node["inputs"]["duration"] == SHIPPED:
            prompt = with_node(prompt, key, duration=SECONDS)
    prompt = with_all(prompt, "AS15_Write", duration=SECONDS)
    prompt = with_all(prompt, "AS15_TrainLora", steps=2)
    for sampler in SAMPLERS:
        prompt = with_all(prompt, sampler, steps=2, seed=seed)
    return prompt


def songs(server: ComfyServer, prompt: dict[str, dict]) -> list[np.ndarray]:
    """Return the audio of each player that is not cached, in the order of their ids."""
    return audio_of(server, prompt, server.play(prompt).outputs)


def audio_of(server: ComfyServer, prompt: dict[str, dict], outputs: dict[str, dict]) -> list[np.ndarray]:
    players = sorted((key for key, node in prompt.items() if node["class_type"] == PLAYER), key=int)
    return [listen(server, file) for key in players if key in outputs for file in outputs[key]["audio"]]


def avoidable(messages: list[dict | bytes], prompt: dict[str, dict]) -> set[tuple[str, str]]:
    """Return (node class, sentence) of the notes of one run that another input would avoid."""
    lines = [(prompt[node]["class_type"], line) for node, text in notes(messages) for line in text.splitlines()]
    return {(node, line) for node, line in lines if not UNAVOIDABLE.fullmatch(line)}


def listen(server: ComfyServer, file: dict) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(server.fetch(file)), always_2d=True)
    assert rate == 48_000
    return samples


def song_of(server: ComfyServer, prompt: dict[str, dict]) -> np.ndarray:
    (song,) = songs(server, prompt)
    return song


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


def test_notes_are_found(server: ComfyServer) -> None:
    prompt = with_all(quick_prompt(server, "01 Text to music", 99), "AS15_Sample", guidance=7.0)
    ((node, sentence),) = avoidable(messages_of(server, prompt), prompt)
    assert node == "AS15_Sample" and "guidance 7" in sentence


@pytest.mark.parametrize("workflow", RUNNABLE, ids=lambda path: path.stem)
def test_it_runs_without_notes(server: ComfyServer, workflow: Path) -> None:
    """Every input of a shipped workflow has an effect."""
    seed = 100 + RUNNABLE.index(workflow)
    prompt = quick_prompt(server, workflow.stem, seed)
    for node in ("AS15_Plan", "AS15_Write", "AS15_Listen"):
        prompt = with_all(prompt, node, seed=seed)
    messages = messages_of(server, prompt)
    assert not avoidable(messages, prompt)
    done = [message["data"] for message in messages if isinstance(message, dict) and message["type"] == "executed"]
    played = audio_of(server, prompt, {data["node"]: data["output"] for data in done})
    assert len(played) == BATCHES.get(workflow.stem, 1)
    for song in played:
        assert song.shape == (DURATIONS.get(workflow.stem, SECONDS) * RATE, 2)
        assert np.isfinite(song).all()
        assert song.std() > 1e-3
        if workflow.stem in LEVELLED:
            assert np.abs(song).max() <= 1
        else:
            assert 0.88 < np.abs(song).max() < 0.9  # -1 dBFS


@pytest.mark.parametrize("workflow", APPS, ids=lambda path: path.stem)
def test_an_app_has_the_graph_of_a_template(workflow: Path) -> None:
    app = load_workflow(workflow)
    graphs = [load_workflow(path) for path in RUNNABLE]
    assert any((app["nodes"], app["links"]) == (graph["nodes"], graph["links"]) for graph in graphs)


@pytest.mark.parametrize(
    ("name", "seed", "generated"),
    [
        ("07 Repaint", 60, slice(int(START * RATE), int(END * RATE))),
        ("08 Extend", 61, slice(int(RECORDING_SECONDS * RATE), None)),
    ],
)
def test_the_kept_part_equals_the_source(server: ComfyServer, name: str, seed: int, generated: slice) -> None:
    prompt = quick_prompt(server, name, seed)
    prompt["0"] = with_inputs(prompt, PLAYER, audio=[find(prompt, "LoadAudio"), 0])[find(prompt, PLAYER)]
    server.unload_models(forget=True)
    song, result = songs(server, prompt)
    kept = np.ones(len(result), bool)
    kept[max(0, generated.start - EDGE) : None if generated.stop is None else generated.stop + EDGE] = False
    padded = np.pad(song, ((0, len(result) - len(song)), (0, 0)))
    assert difference(padded[kept], result[kept]) == 0
    assert difference(padded[generated], result[generated]) > 1e-2


@pytest.mark.parametrize(
    ("name", "task", "inputs"),
    [
        ("06 Cover", "AS15_Cover", {}),
        ("09 Stems", "AS15_Stems", {}),
        ("09 Stems", "AS15_Stems", {"operation": "add"}),
        ("09 Stems", "AS15_Stems", {"operation": "complete", "more_tracks": "drums, bass"}),
        ("10 Timbre", "AS15_Timbre", {}),
        ("11 Morph", "AS15_Morph", {}),
    ],
    ids=["cover", "extract", "add", "complete", "timbre", "morph"],
)
def test_task_and_source_change_the_song(server: ComfyServer, name: str, task: str, inputs: dict) -> None:
    """The result differs from the song without the task, and from that of another source."""
    prompt = with_inputs(quick_prompt(server, name, seed=63), task, **inputs)
    key = find(prompt, task)
    result = song_of(server, prompt)
    least = 1e-2
    if name == "10 Timbre":  # its effect on nano is small, but the same prompt gives the same bits
        least = 1e-4
        server.unload_models(forget=True)
        assert difference(result, song_of(server, prompt)) == 0
    samples, rate = soundfile.read(RECORDING)
    soundfile.write(server.base / "input" / "backwards.wav", samples[::-1], rate)
    for other in (
        without(prompt, key, PASSED_ON.get(task)),
        with_inputs(prompt, "LoadAudio", audio="backwards.wav"),
    ):
        assert difference(result, song_of(server, other)) > least


def test_takes_and_their_retake(server: ComfyServer) -> None:
    """A batch equals its seeds alone. The retake variance sets the distance to the first take."""
    prompt = quick_prompt(server, "13 Many takes", seed=40)
    takes = prompt[find(prompt, "AS15_CompareTakes")]["inputs"]
    save = prompt.pop(find(prompt, PLAYER))["inputs"]
    prompt |= {str(90 + number): {"class_type": PLAYER, "inputs": {**save, "audio": takes[f"take_{number}"]}}
               for number in (1, 2)}  # fmt: skip
    first, second, near = songs(server, prompt)
    assert difference(first, second) > 0.1
    for i, take in enumerate((first, second)):
        assert difference(take, song_of(server, quick_prompt(server, "01 Text to music", seed=40 + i))) < 1e-3
    (retake,) = [key for key, node in prompt.items() if node["inputs"].get("retake_variance")]
    same, far = (songs(server, with_node(prompt, retake, retake_variance=variance))[-1] for variance in (0.0, 1.0))
    assert difference(first, same) < 1e-3 and difference(first, near) > 1e-2
    assert np.linalg.norm(near - first) < np.linalg.norm(far - first)


def test_a_batch_of_songs_equals_each_song(server: ComfyServer) -> None:
    prompt = quick_prompt(server, "14 Batch of songs", seed=80)
    second = prompt[find(prompt, "AS15_BatchSongs")]["inputs"]["song_2"]
    batched = songs(server, prompt)
    alone, *_ = songs(server, with_inputs(prompt, "AS15_Sample", conditioning=second, seed=81))
    assert [difference(alone, song) < 1e-3 for song in batched] == [False, True]


def test_the_files_of_stems_add_up_to_the_song(server: ComfyServer) -> None:
    """The note states this error."""
    prompt = quick_prompt(server, "21 Stems to files", seed=85)
    prompt["0"] = with_inputs(prompt, PLAYER, audio=[find(prompt, "LoadAudio"), 0])[find(prompt, PLAYER)]
    outputs = server.play(prompt).outputs
    song, *stems = audio_of(server, prompt, outputs)
    down = re.search(r"stems turned down by ([\d.]+) dB", outputs[find(prompt, "AS15_MixStems")]["text"][0])
    gain = 10 ** (-float(down[1]) / 20) if down else 1.0
    assert len(stems) == 4 and {len(stem) for stem in stems} == {len(song)}
    assert min(stem.std() for stem in stems) > 1e-3
    assert difference(sum(stems), song * gain) < 1e-6
    prompt.pop("0")
    alone = {key: value for key, value in prompt[find(prompt, "AS15_MixStems")]["inputs"].items() if key != "reference"}
    prompt[find(prompt, "AS15_MixStems")]["inputs"] = alone
    (failed,) = [each["data"] for each in messages_of(server, prompt) if each["type"] == "execution_error"]
    assert "reference: " in failed["exception_message"]


def test_guidance_changes_the_song_of_a_base_model(server: ComfyServer) -> None:
    prompt = with_inputs(quick_prompt(server, "01 Text to music", seed=20), "AS15_LoadModel", variant="base")
    own, seven, off = (songs(server, with_inputs(prompt, "AS15_Sample", guidance=g))[0] for g in (0.0, 7.0, 1.0))
    assert difference(own, seven) < 1e-3
    assert difference(own, off) > 1e-2


def test_ksampler_equals_sample_song(server: ComfyServer) -> None:
    prompt = quick_prompt(server, "15 KSampler", seed=30)
    ksampler = find(prompt, "KSampler")
    inputs = prompt[ksampler]["inputs"]
    ours = {"batch_size": 1, "guidance": 0.0, "shift": 0.0, "solver": "euler", "guidance_method": "cfg"}
    ours |= {"model": inputs["model"], "conditioning": inputs["positive"]}
    ours |= {"seed": inputs["seed"], "steps": inputs["steps"]}
    swapped = {**prompt, ksampler: {"class_type": "AS15_Sample", "inputs": ours}}
    (native,), (sampled,) = songs(server, prompt), songs(server, swapped)
    assert difference(native, sampled) < 1e-3


def test_an_empty_song_has_its_duration_and_batch_size(server: ComfyServer) -> None:
    prompt = with_inputs(quick_prompt(server, "15 KSampler", seed=50), "AS15_Song", duration=4.2)
    prompt = with_inputs(prompt, "AS15_EmptyLatent", batch_size=3)
    empty = [find(prompt, "AS15_EmptyLatent"), 0]
    save = {"class_type": "SaveLatent", "inputs": {"samples": empty, "filename_prefix": "latents/empty"}}
    run = server.play({**{key: prompt[key] for key in (empty[0], find(prompt, "AS15_Song"))}, "save": save})
    latent = load(server.fetch(run.outputs["save"]["latents"][0]))["latent_tensor"]
    assert latent.shape == (3, 64, 105)
    assert not latent.any()
