"""`acestep batch` on a tiny model."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from acestep_core import read_settings
from acestep_core.audio import audio_files, measured, read_audio
from acestep_core.audio.measured import MeasuredMusic
from acestep_core.batch.manifest import read_manifest
from acestep_core.cli import batch_command
from tests.support.tiny import relative_error

REPO = Path(__file__).parents[3]
MANIFEST = Path("out/manifest.jsonl")
SONGS = 600  # of a batch that is stopped, more than it makes before the signal comes on a busy machine


EDIT = {"caption": "edit", "command": "cover", "file": "text.flac"}


def write_list(*rows):
    Path("songs.jsonl").write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))


def song(caption, **fields):
    return {"caption": caption, "duration": 1, "steps": 2, **fields}


def test_a_row_is_the_song_of_the_same_options(acestep, monkeypatch):
    """In one thread, as on a CPU, and in three, as on a GPU."""
    acestep("rock", "--duration", 2, "--steps", 2, "--seed", 1, "-o", "source.flac")
    write_list(
        song("piano", seed=3),
        song("rock", seed=4, lyrics="[Verse]\nla", bpm=90, ending=0.5, loudness="streaming", title="T", output="r.wav"),
        song("two", seed=5, batch=2, normalize=False, guidance=1.0, timesteps=[0.9, 0.5], steps=None),
        song("again", seed=6, command="repaint", file="source.flac", where="0.5-1", duration=None),
        {"from": "source.flac", "seed": 7, "time-signature": 3},
    )
    assert acestep("batch", "songs.jsonl", "-o", "out")[0] == 0
    monkeypatch.setattr(batch_command, "threads_of", lambda device: 3)
    code, printed, _ = acestep("batch", "songs.jsonl", "-o", "other", "-q")
    assert code == 0 and len(printed.split()) == 6
    Path("lyrics.txt").write_text("[Verse]\nla")
    steps = ("--duration", 1, "--steps", 2)
    finish = ("--ending", 0.5, "--loudness", "streaming", "--title", "T")
    alone = {
        "song-0001.flac": ("piano", *steps, "--seed", 3),
        "r.wav": ("rock", *steps, "--seed", 4, "--lyrics", "lyrics.txt", "--bpm", 90, *finish),
        "song-0003.flac": ("two", "--duration", 1, "--seed", 5, "--batch", 2, "--no-normalize", "--guidance", 1,
                           "--timesteps", "0.9,0.5"),
        "song-0004.flac": ("repaint", "source.flac", "again", "--where", "0.5-1", "--steps", 2, "--seed", 6),
        "song-0005.flac": ("--from", "source.flac", "--seed", 7, "--time-signature", 3),
    }  # fmt: skip
    for name, arguments in alone.items():
        assert acestep(*arguments, "-o", name)[0] == 0
    names = sorted(path.name for path in Path("out").glob("*.*") if path != MANIFEST)
    assert names == sorted([*alone.keys() - {"song-0003.flac"}, "song-0003-1.flac", "song-0003-2.flac"])
    for name in names:
        assert Path(name).read_bytes() == Path("out", name).read_bytes() == Path("other", name).read_bytes(), name
    entries = {entry["file"]: entry for entry in read_manifest(MANIFEST)}
    assert sorted(entries) == names and entries["song-0005.flac"]["row"] == 5 and entries["r.wav"]["made_in"] > 0
    for name, entry in entries.items():
        assert entry["recipe"] == read_settings(f"out/{name}")
        assert entry["seconds"] == round(read_audio(f"out/{name}").shape[-1] / 48_000, 3)


def test_songs_of_one_length_in_one_batch_agree_to_rounding(acestep):
    codes = [[5] * 5, [7] * 5]
    rows = [song(f"song {n}", seed=n) for n in range(3)]
    rows += [song("codes", codes=each, seed=9, steps=2, duration=None) for each in codes]
    write_list(*rows, song("longer", duration=2, seed=1))
    assert acestep("batch", "songs.jsonl", "-o", "out", "--no-normalize", "--format", "wav")[0] == 0
    assert acestep("batch", "songs.jsonl", "-o", "b", "--together", 4, "--no-normalize", "--format", "wav")[0] == 0
    for number in range(1, 7):
        name = f"song-{number:04}.wav"
        assert read_settings(f"out/{name}") == read_settings(f"b/{name}")
        assert relative_error(read_audio(f"b/{name}"), read_audio(f"out/{name}")) < 1e-3
    assert read_settings("b/song-0004.wav")["codes"] == codes[0]


@pytest.mark.parametrize(
    "row, words",
    [
        ({"caption": "x", "duration": "long"}, ["duration", "'long'"]),
        ({"caption": "x", "bpm": 12.5}, ["bpm", "12.5"]),
        ({"caption": "x", "bpm": 9}, ["BPM", "9", "30 to 300"]),
        ({"caption": "x", "tempo": 90}, ["'tempo'", "bpm"]),
        ({"caption": ["x"]}, ["caption", "text"]),
        ({"caption": "x", "lyrics": 5}, ["lyrics", "text"]),
        ({"caption": "x", "normalize": "maybe"}, ["normalize", "true or false"]),
        ({"caption": "x", "output": "../a.flac"}, ["output", "folder"]),
        ({"caption": "x", "output": "a.xyz"}, [".xyz", ".flac"]),
        ({"caption": "x", "output": "good.flac"}, ["output", "row 1"]),
        ({"caption": "x", "command": "remix"}, ["command", "'remix'", "repaint"]),
        ({"command": "repaint", "where": "1-2"}, ["file", "missing"]),
        ({"command": "repaint", "file": "missing.flac", "where": "1-2"}, ["missing.flac"]),
        ({"caption": "x", "plan": {"tempo": 1}}, ["plan", "'tempo'"]),
        ({"caption": "x", "plan": {"top_p": "high"}}, ["plan", "top", "'high'"]),
        ({"caption": "x", "steps": 0}, ["steps", "0"]),
        ({"caption": "x", "lora": "nowhere"}, ["nowhere"]),
        ({"from": "missing.json"}, ["missing.json"]),
        ({"from": "-"}, ["from", "standard input"]),
        ({"command": "morph", "file": "a.flac", "source_lyrics": "-"}, ["source_lyrics", "standard input"]),
        ({"duration": 2}, ["caption", "missing"]),
        ("no json", ["JSON"]),
    ],
)  # fmt: skip
def test_a_bad_row_names_itself_and_its_field(acestep, monkeypatch, row, words):
    made = []
    monkeypatch.setattr(batch_command, "_run_here", lambda jobs, refused, *rest: _refuse(made, jobs, refused))
    write_list(song("good", output="good.flac"), row)
    code, _, err = acestep("batch", "songs.jsonl", "-o", "out")
    if "nowhere" in words:  # found when the model is loaded
        assert len(made[0][0]) == 2
        return
    assert code == 1 and [job.number for job in made[0][0]] == [1]
    (outcome,) = made[0][1]
    assert outcome.number == 2 and outcome.error.startswith("songs.jsonl, line 2: ")
    assert all(word in outcome.error for word in words) and "\n" not in outcome.error


def _refuse(made, jobs, refused):
    made.append((jobs, refused))
    raise batch_command.BatchStoppedError("enough")


def test_a_row_keeps_its_own_recording(acestep):
    write_list(song("rock", output="take.flac"))
    assert acestep("batch", "songs.jsonl", "-o", "out")[0] == 0
    before = Path("out/take.flac").read_bytes()
    write_list(song("x", command="repaint", file="out/take.flac", where="0-0.5", output="take.flac", duration=None))
    code, _, err = acestep("batch", "songs.jsonl", "-o", "out")
    assert code == 1 and "take.flac is the recording that is edited" in err
    assert Path("out/take.flac").read_bytes() == before


def test_songs_of_a_list_do_not_share_standard_input(acestep):
    write_list(song("one"), song("two"))
    code, _, err = acestep("batch", "songs.jsonl", "--lrc", "-", "-o", "out")
    assert code == 2 and "--lrc: the songs of a list cannot share standard input" in err


def test_a_row_that_cannot_be_made_costs_that_row(acestep):
    write_list(song("one"), song("bad", lora="nowhere"), EDIT, song("two"))
    Path("text.flac").write_text("no audio")
    code, out, err = acestep("batch", "songs.jsonl", "-o", "out")
    assert code == 1 and out.split() == ["song-0001.flac", "song-0004.flac"] and "2 songs failed" in err
    errors = {entry["row"]: entry["error"] for entry in read_manifest(MANIFEST) if "error" in entry}
    assert "nowhere" in errors[2] and "text.flac" in errors[3] and "line 2: " in err and "line 3: " in err
    write_list(song("one"), song("good"), song("two"), song("two"))
    code, out, _ = acestep("batch", "songs.jsonl", "-o", "out")  # rows 1 and 4 stay
    assert code == 0 and out.split() == ["song-0002.flac", "song-0003.flac"]
    assert sorted(entry["row"] for entry in read_manifest(MANIFEST)) == [1, 2, 3, 4]


def test_a_full_disk_is_one_sentence(acestep, monkeypatch):
    write_list(*(song(f"song {n}") for n in range(4)))
    whole, names = audio_files.atomic_write, []

    def full(path):
        names.append(path.name)
        if len(names) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(path)

    monkeypatch.setattr(audio_files, "atomic_write", full)
    code, out, err = acestep("batch", "songs.jsonl", "-o", "out", "-q")
    assert code == 1 and len(out.split()) == 2 and err.count("\n") == 1 and os.strerror(errno.ENOSPC) in err
    assert len(names) == 3
    code, out, _ = acestep("batch", "songs.jsonl", "-o", "out", "-q")
    assert code == 0 and len(out.split()) == 2 and len(read_manifest(MANIFEST)) == 4


def test_the_seed_of_the_command_counts_up(acestep):
    write_list(song("a"), song("b", seed=77), song("c"))
    acestep("batch", "songs.jsonl", "-o", "out", "--seed", 5, "--bpm", 99)
    settings = [read_settings(f"out/song-000{n}.flac") for n in (1, 2, 3)]
    assert [each["seed"] for each in settings] == [5, 77, 7] and {each["bpm"] for each in settings} == {99}


def test_songs_are_planned(acestep, monkeypatch):
    """The audio codes of nano's planner are those of another codebook: the metadata alone are planned."""
    rows = [song("slow blues", seed=3, plan={"no_codes": True, "seed": 8}), song("slow blues", seed=3, plan=False)]
    write_list(*rows, song("fast punk", seed=3, plan={"no_codes": "yes", "seed": 8, "no-rewrite": True}))
    assert acestep("batch", "songs.jsonl", "-o", "out", "--plan")[0] == 0
    planned, plain, kept = (read_settings(f"out/song-000{n}.flac") for n in (1, 2, 3))
    assert (
        {"bpm", "key", "time_signature"} <= planned.keys() and "bpm" not in plain and plain["caption"] == "slow blues"
    )
    assert "bpm" in kept and kept["caption"] == "fast punk"
    code, out, _ = acestep("plan", "slow blues", "--no-codes", "--seed", 8, "--duration", 1, model=False)
    assert code == 0 and json.loads(out).items() <= {**planned, "seed": 8}.items()


def test_songs_of_another_key_are_dropped(acestep, monkeypatch):
    music = MeasuredMusic(bpm=None, bpm_confidence=0, key="C major", key_confidence=1)
    monkeypatch.setattr(measured, "measure_music", lambda waveform, rate: music)
    write_list(song("free"), song("same", key="c maj"), song("relative", key="A minor"), song("other", key="D major"))
    code, out, err = acestep("batch", "songs.jsonl", "-o", "out", "--keep", "bpm:±4%", "--keep", "key")
    assert code == 0 and out.split() == ["song-0001.flac", "song-0002.flac"] and "song-0004.flac is dropped" in err
    entries = {entry["row"]: entry for entry in read_manifest(MANIFEST)}
    assert entries[4]["dropped"] == "song-0004.flac" and "D major" in entries[4]["because"][0]
    assert entries[1]["measured"]["key"] == "C major" and "because" not in entries[1]
    rules = ("--keep", "bpm:±4%", "--keep", "key")
    assert acestep("batch", "songs.jsonl", "-o", "out", *rules)[1] == ""  # nothing is left to make
    code, out, _ = acestep("batch", "songs.jsonl", "-o", "out", "--keep", "key:relative")
    assert code == 0 and out.split() == ["song-0003.flac"] and len(read_manifest(MANIFEST)) == 4
    code, _, err = acestep("batch", "songs.jsonl", "-o", "out", "--keep", "loud")
    assert code == 2 and "keep" in err and "'loud'" in err


def start(models):
    arguments = ["batch", "songs.jsonl", "-o", "out", "--model", models, "--device", "cpu", "--dtype", "float32"]
    command = [sys.executable, "-m", "acestep_core", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    # A shell's background job ignores SIGINT, and so would each process that it starts.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    finally:
        signal.signal(signal.SIGINT, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_stopped_and_a_killed_batch_go_on(acestep, models):
    rows = [song(f"song {n}", steps=8) for n in range(SONGS)]
    write_list(*rows)
    stopped = start(models)
    first = stopped.stdout.readline()
    stopped.send_signal(signal.SIGINT)
    rest, err = stopped.communicate(timeout=60)
    done = [first.strip(), *rest.split()]
    assert stopped.returncode == 130 and "stopped" in err and "Traceback" not in err and 1 <= len(done) < SONGS
    assert [entry["file"] for entry in read_manifest(MANIFEST)] == done
    killed = start(models)
    killed.stdout.readline()
    killed.kill()
    killed.communicate(timeout=60)
    made = len(read_manifest(MANIFEST))
    assert len(done) < made < SONGS
    write_list(*rows[: made + 3])
    code, out, _ = acestep("batch", "songs.jsonl", "-o", "out")
    assert code == 0 and len(out.split()) == 3
    assert sorted(entry["row"] for entry in read_manifest(MANIFEST)) == list(range(1, made + 4))
    assert acestep("batch", "songs.jsonl", "-o", "other")[0] == 0
    songs = sorted(Path("other").glob("*.flac"))
    assert len(songs) == made + 3
    for path in songs:
        assert path.read_bytes() == (Path("out") / path.name).read_bytes()


def test_the_threads_of_a_stopped_batch_end(acestep, monkeypatch):
    monkeypatch.setattr(batch_command, "threads_of", lambda device: 3)
    write_list(*(song(f"song {n}") for n in range(6)))

    def stop_after_one(self, progress, outcomes):
        if progress.done:
            raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(batch_command._Report, "__call__", stop_after_one)
        assert acestep("batch", "songs.jsonl", "-o", "out")[0] == 130
    made = len(read_manifest(MANIFEST))
    assert 1 <= made < 6
    code, out, _ = acestep("batch", "songs.jsonl", "-o", "out")
    assert code == 0 and len(out.split()) == 6 - made
