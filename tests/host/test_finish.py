"""Finish Song and Save Song: levels, tags, file names and the graph in a file."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from acestep_core.audio import Tags, measure_loudness, read_audio, read_tags

from .graph import with_node
from .server import ComfyServer, PromptRejected

RATE = 48_000
FINISH = {"loudness": "streaming (-14)", "lufs": -14.0, "true_peak": -1.0, "fade_in": 0.0, "fade_out": 0.0,
          "trim": False, "ending": 0.0, "one_gain": False}  # fmt: skip
SAVE = {"filename_prefix": "audio/song", "format": "flac", "title": "", "artist": "", "album": "", "workflow": True}
SONG = {"caption": "slow piano", "lyrics": "[Verse]\nHello, wörld 🎵", "language": "English", "duration": 3.0,
        "bpm": 90, "key": "C# minor", "time_signature": "4/4"}  # fmt: skip


def tone(seconds: float, level: float, rate: int = RATE, frequency: float = 440.0) -> np.ndarray:
    beat = 0.6 + 0.4 * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * 3 / rate)
    wave = level * beat * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * frequency / rate)
    return np.stack([wave, 0.8 * wave], axis=1)


@pytest.fixture(scope="module")
def prompt(server: ComfyServer) -> dict[str, dict]:
    """A recording, finished and saved with the tags of a song."""
    silence = np.zeros((RATE, 2))
    soundfile.write(server.base / "input" / "quiet.wav", np.concatenate([silence, tone(3, 0.1), silence]), RATE)
    return {
        "load": {"class_type": "LoadAudio", "inputs": {"audio": "quiet.wav"}},
        "song": {"class_type": "AS15_Song", "inputs": SONG},
        "finish": {"class_type": "AS15_FinishSong", "inputs": {"audio": ["load", 0], **FINISH}},
        "save": {"class_type": "AS15_SaveSong", "inputs": {"audio": ["finish", 0], "song": ["song", 0], **SAVE}},
    }


def path_of(server: ComfyServer, file: dict) -> Path:
    assert file["type"] == "output"
    return server.base / "output" / file["subfolder"] / file["filename"]


def saved(server: ComfyServer, prompt: dict, **inputs: object) -> list[Path]:
    """Run with other inputs of Save Song, and return the saved files."""
    run = server.play(with_node(prompt, "save", **inputs))
    return [path_of(server, file) for file in run.files()]


def finished(server: ComfyServer, prompt: dict, **inputs: object) -> torch.Tensor:
    """Run with other inputs of Finish Song, and return the saved waveform `[2, samples]`."""
    (path,) = saved(server, with_node(prompt, "finish", **inputs))
    return read_audio(path)[0]


@pytest.mark.parametrize(
    ("inputs", "target"),
    [
        ({}, -14),
        ({"loudness": "apple (-16)"}, -16),
        ({"loudness": "broadcast (-23)"}, -23),
        ({"loudness": "number", "lufs": -20.0}, -20),
    ],
)
def test_the_saved_file_has_the_target(server: ComfyServer, prompt: dict, inputs: dict, target: float) -> None:
    levels = measure_loudness(finished(server, prompt, **inputs), RATE)
    assert abs(levels.integrated - target) < 0.2 and levels.true_peak < -0.9


def test_every_input_changes_the_song(server: ComfyServer, prompt: dict) -> None:
    source = torch.from_numpy(soundfile.read(server.base / "input" / "quiet.wav", dtype="float32")[0].T)
    plain = finished(server, prompt, loudness="none")
    assert (plain - source).abs().max() < 1e-4
    assert finished(server, prompt, loudness="none", true_peak=-20.0).abs().max() < 0.1 + 1e-3
    whole = {"loudness": "none", "trim": True}
    trimmed = finished(server, prompt, **whole)
    assert abs(trimmed.shape[-1] / RATE - 3.52) < 0.05
    assert finished(server, prompt, **whole, fade_in=1.0)[:, :2400].abs().max() < 0.1 * trimmed[:, :4800].abs().max()
    faded = finished(server, prompt, **whole, fade_out=2.0)
    assert faded[:, 2 * RATE : 3 * RATE].abs().max() < 0.95 * trimmed[:, 2 * RATE : 3 * RATE].abs().max()
    ended = finished(server, prompt, loudness="none", ending=3.0)
    assert abs(ended.shape[-1] / RATE - 4.5) < 0.2


def test_the_node_shows_the_levels_before_and_after(server: ComfyServer, prompt: dict) -> None:
    since = len(server.log)
    run = server.play(with_node(prompt, "finish", fade_in=0.25))
    (line,) = run.outputs["finish"]["text"]
    before, after = re.findall(r"(-?[\d.]+) LUFS", line)
    assert float(before) < -23 and abs(float(after) + 14) < 0.3
    assert f"finish: {line}" in server.log[since:]


def test_the_node_shows_tempo_and_key(server: ComfyServer, prompt: dict) -> None:
    beats = tone(6, 0.5, frequency=220.0) + tone(6, 0.4, frequency=261.63) + tone(6, 0.4, frequency=329.63)
    beats *= (np.exp(-8 * ((np.arange(len(beats)) / RATE * 2) % 1)) / 2)[:, None]
    soundfile.write(server.base / "input" / "beats.wav", beats, RATE)
    (line,) = server.play(with_node(prompt, "load", audio="beats.wav")).outputs["finish"]["text"]
    assert re.search(r"; \d+ BPM.*, A minor", line), line


def test_what_cannot_be_reached_is_said(server: ComfyServer, prompt: dict) -> None:
    soundfile.write(server.base / "input" / "silent.wav", np.zeros((RATE, 1)), RATE)
    silent = with_node(prompt, "load", audio="silent.wav")
    assert "silent" in server.play(silent).outputs["finish"]["text"][0]


def test_one_gain_keeps_the_relation_of_a_batch(server: ComfyServer, prompt: dict) -> None:
    for name, level in (("a.wav", 0.2), ("b.wav", 0.05)):
        soundfile.write(server.base / "input" / name, tone(2, level), RATE)
    both = {
        **prompt,
        "load": {"class_type": "LoadAudio", "inputs": {"audio": "a.wav"}},
        "second": {"class_type": "LoadAudio", "inputs": {"audio": "b.wav"}},
    }
    for one_gain, ratio in ((True, 4.0), (False, 1.0)):
        peaks = []
        batch = batch_of(server, both, one_gain)
        for waveform in batch:
            peaks.append(float(waveform.abs().max()))
        assert abs(peaks[0] / peaks[1] - ratio) < 0.05 * ratio


def batch_of(server: ComfyServer, prompt: dict, one_gain: bool) -> list[torch.Tensor]:
    """Finish two recordings as one batch, and return the saved songs."""
    batch = {"class_type": "TestsBatchAudio", "inputs": {"first": ["load", 0], "second": ["second", 0]}}
    together = with_node({**prompt, "batch": batch}, "finish", audio=["batch", 0], one_gain=one_gain)
    return [read_audio(path)[0] for path in saved(server, together)]


# -- Save Song ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["flac", "mp3", "opus", "wav", "m4a"])
def test_every_format_has_audio_and_tags(server: ComfyServer, prompt: dict, format: str) -> None:
    names = {"title": "Dämmerung 夜", "artist": "Nobody & Sons", "album": "Firsts"}
    (path,) = saved(server, prompt, format=format, **names)
    assert path.suffix == f".{format}"
    tags = read_tags(path)
    assert {name: getattr(tags, name) for name in names} == names
    assert (tags.lyrics, tags.bpm, tags.language) == (SONG["lyrics"], 90, "en")
    if format == "m4a":
        assert not tags.extra
        return
    assert (tags.key, tags.comment) == ("C# minor", SONG["caption"])
    graph = json.loads(tags.extra["prompt"])
    assert graph["save"]["inputs"]["title"] == names["title"]
    samples = read_audio(path)[0]
    assert abs(samples.shape[-1] / RATE - 5) < 0.1
    levels = measure_loudness(samples, RATE)
    assert abs(levels.integrated + 14) < 0.2 and levels.true_peak < -0.5


def test_a_file_to_publish_holds_no_graph(server: ComfyServer, prompt: dict) -> None:
    (path,) = saved(server, prompt, workflow=False, title="Song")
    tags = read_tags(path)
    assert tags == Tags(title="Song", lyrics=SONG["lyrics"], bpm=90, key="C# minor", language="en")
    assert b"AS15" not in path.read_bytes()


def test_names_follow_their_patterns(server: ComfyServer, prompt: dict) -> None:
    day = time.strftime("%Y-%m-%d")
    (path,) = saved(server, prompt, filename_prefix="%year%/%date:yyyy-MM-dd%/%artist% - %title%", title="a/b: c?")
    assert path == server.base / "output" / day[:4] / day / "artist - a_b_ c__00001_.flac"


def test_no_file_is_replaced(server: ComfyServer, prompt: dict) -> None:
    (first,) = saved(server, prompt, filename_prefix="again/song", title="1")
    content = first.read_bytes()
    (second,) = saved(server, prompt, filename_prefix="again/song", title="2")
    (other,) = saved(server, prompt, filename_prefix="again/song", title="3", format="mp3")
    assert [path.name for path in (first, second, other)] == [
        "song_00001_.flac", "song_00002_.flac", "song_00003_.mp3",
    ]  # fmt: skip
    assert first.read_bytes() == content
    assert {path.name for path in first.parent.iterdir()} == {path.name for path in (first, second, other)}


@pytest.mark.parametrize("format", ["opus", "mp3", "m4a"])
def test_a_rate_that_the_format_lacks_is_converted(server: ComfyServer, prompt: dict, format: str) -> None:
    soundfile.write(server.base / "input" / "high.wav", tone(1, 0.3, 96_000), 96_000)
    direct = with_node(with_node(prompt, "load", audio="high.wav"), "save", audio=["load", 0])
    (path,) = saved(server, direct, format=format)
    if format != "m4a":
        assert soundfile.info(path).samplerate == RATE


def test_a_clipping_song_is_noted(server: ComfyServer, prompt: dict) -> None:
    soundfile.write(server.base / "input" / "loud.wav", tone(1, 1.5), RATE, subtype="FLOAT")
    since = len(server.log)
    saved(server, with_node(with_node(prompt, "load", audio="loud.wav"), "save", audio=["load", 0]))
    assert "clips in the file" in server.log[since:]


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({"filename_prefix": "../song"}, "filename_prefix"),
        ({"title": "a\0b"}, "title"),
        ({"filename_prefix": "x" * 300}, "too long"),
    ],
)
def test_bad_input_is_one_sentence(server: ComfyServer, prompt: dict, inputs: dict, word: str) -> None:
    error = server.run(with_node(prompt, "save", **inputs)).error
    assert word in error and "\n" not in error


def test_an_unknown_target_is_refused(server: ComfyServer, prompt: dict) -> None:
    """Versions of ComfyUI that do not check the list run the node."""
    try:
        error = server.run(with_node(prompt, "finish", loudness="louder")).error
    except PromptRejected as rejected:
        error = rejected.node_errors["finish"][0]
    assert "loudness" in error and "\n" not in error


def test_the_player_gets_the_saved_file(server: ComfyServer, prompt: dict) -> None:
    run = server.play(with_node(prompt, "save", filename_prefix="player/song"))
    (file,) = run.outputs["save"]["audio"]
    samples, rate = soundfile.read(io.BytesIO(server.fetch(file)))
    assert rate == RATE and samples.shape == (5 * RATE, 2)
    assert run.outputs["save"]["text"] == [f"player/{file['filename']}"]
