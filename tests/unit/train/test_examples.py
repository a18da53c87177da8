"""Folders of songs, good and bad, and the dataset file of the original trainer."""

import json
import os
import struct
import sys

import pytest
import torch

from acestep_core import write_audio
from acestep_core.cli import main
from acestep_core.errors import RequestError
from acestep_core.train.checks import check_dataset
from acestep_core.train.dataset_json import write_dataset_json
from acestep_core.train.song_folder import read_dataset
from tests.support.sounds import music

SECONDS = 6


@pytest.fixture
def folder(tmp_path):
    """Two good songs: one with every text file, one with JSON alone."""
    folder = tmp_path / "my band"
    folder.mkdir()
    write_audio(folder / "one.flac", music(SECONDS, seed=1))
    write_audio(folder / "two.wav", music(SECONDS, seed=2))
    (folder / "one.txt").write_text("slow blues\n")
    (folder / "one.lrc").write_text("[ti:One]\n[00:01.00]first line\n[00:03.50]second line\n")
    (folder / "one.json").write_text(json.dumps({"caption": "from JSON", "bpm": 90, "keyscale": "A minor"}))
    values = {"caption": "fast rock", "lyrics": "la la", "timesignature": "3/4", "genre": "rock", "custom_tag": "loud"}
    (folder / "two.json").write_text(json.dumps(values))
    return folder


def test_text_files_are_read_and_take_precedence_over_json(folder):
    dataset = read_dataset(folder, trigger="neon")
    one, two = dataset.examples
    assert (one.song.caption, one.song.lyrics) == ("slow blues", "first line\nsecond line")
    assert (one.song.metadata.bpm, one.song.metadata.key) == (90, "A minor")
    assert (two.song.metadata.time_signature, two.genre) == ("3", "rock")
    assert [song.caption for song in dataset.songs()] == ["neon, slow blues", "loud, fast rock"]
    assert dataset.triggers == ("neon", "loud")
    (folder / "one.lyrics.txt").write_text("other lyrics")
    assert read_dataset(folder).examples[0].song.lyrics == "other lyrics"


@pytest.mark.parametrize(
    "place, caption", [("prepend", "neon, slow blues"), ("append", "slow blues, neon"), ("replace", "neon")]
)
def test_the_place_of_the_trigger_word(folder, place, caption):
    assert read_dataset(folder, trigger=" neon ", place=place).songs()[0].caption == caption


def test_a_place_must_be_known(folder):
    with pytest.raises(RequestError, match="prepend"):
        read_dataset(folder, trigger="neon", place="middle")


def _write_ten_hours(path):
    """Write a WAV file of silence that takes no place on most disks."""
    rate, size = 4000, 10 * 3600 * 4000 * 2
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    with path.open("wb") as file:
        file.write(struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form + struct.pack("<4sI", b"data", size))
        file.truncate(44 + size)


def bad(folder):
    """Add one song of each problem, and return the word that its sentence must have."""
    samples = music(SECONDS, seed=3)
    (folder / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    whole = (folder / "one.flac").read_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    _write_ten_hours(folder / "hours.wav")
    write_audio(folder / "two.flac", samples)  # the name of two.wav
    write_audio(folder / "silence.wav", torch.zeros(2, SECONDS * 48_000))
    write_audio(folder / "short.wav", samples[:, :48_000])
    write_audio(folder / "lyrics.wav", samples)
    (folder / "lyrics.txt").write_text("a caption")
    (folder / "lyrics.lyrics.txt").write_bytes("für".encode("latin-1"))
    write_audio(folder / "mute caption.wav", music(SECONDS, seed=4))
    (folder / "again.flac").write_bytes(whole)
    (folder / "again.txt").write_text("the same recording")
    (folder / "empty.mp3").write_bytes(b"")
    for name in ("broken", "cut", "hours", "silence", "short", "empty"):
        (folder / f"{name}.txt").write_text("a caption")
    return {
        "broken.flac": "read", "cut.flac": "", "hours.wav": "longer than 600", "two.wav": "same name",
        "silence.wav": "silent", "short.wav": "5.12", "lyrics.wav": "UTF-8", "mute caption.wav": "caption",
        "one.flac": "same recording", "empty.mp3": "",
    }  # fmt: skip


def test_bad_songs_get_one_sentence_each_and_the_others_stay(folder):
    expected = bad(folder)
    write_audio(folder / "low.wav", music(SECONDS, seed=5)[:, ::6], 8000)
    (folder / "low.txt").write_text("phone call")
    (folder / "low.json").write_text('{"bpm": "fast", "mood": "sad"}')
    (folder / "orphan.txt").write_text("no audio has this name")
    checked = check_dataset(read_dataset(folder))
    left_out = {problem.path.name: str(problem) for problem in checked.problems if problem.left_out}
    assert left_out.keys() == expected.keys()
    assert all(word in left_out[name] and "\n" not in left_out[name] for name, word in expected.items())
    assert {each.path.name for each in checked.dataset.examples} == {"again.flac", "two.flac", "low.wav"}
    notes = " ".join(str(problem) for problem in checked.problems if not problem.left_out)
    assert all(word in notes for word in ("8000 Hz", "BPM", "'mood'", "orphan.txt", "only 3 songs"))


def test_other_rates_are_no_problem(folder, tmp_path):
    write_audio(folder / "three.wav", music(SECONDS, seed=3), 44_100)
    (folder / "three.txt").write_text("a caption")
    checked = check_dataset(read_dataset(folder))
    assert len(checked.audio) == 3 and not any("three.wav has 44" in str(problem) for problem in checked.problems)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text(folder):
    os.rename(folder / "one.flac", os.path.join(os.fsencode(folder), b"one\xff.flac"))
    dataset = read_dataset(folder)
    assert [each.name for each in dataset.examples] == ["two.wav"]
    assert any("UTF-8" in str(problem) and problem.left_out for problem in dataset.problems)


@pytest.mark.parametrize("name, word", [("nothing", "does not exist"), ("empty", "no audio"), ("file.flac", "a file")])
def test_a_folder_without_songs(tmp_path, name, word):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.flac").write_bytes(b"")
    with pytest.raises(RequestError, match=word):
        read_dataset(tmp_path / name)


def test_the_command_lists_the_problems_and_trains_nothing(folder, capsys):
    bad(folder)
    assert main(["train", str(folder), "--check", "--write-dataset", str(folder / "set.json")]) == 0
    err = capsys.readouterr().err
    assert err.count("; left out\n") == 10 and "2 songs" in err and "10 left out" in err
    assert not list(folder.parent.glob("*.train"))
    assert len(json.loads((folder / "set.json").read_text())["samples"]) == 2


def test_no_song_is_left(tmp_path, capsys):
    write_audio(tmp_path / "a.wav", torch.zeros(2, SECONDS * 48_000))
    assert main(["train", str(tmp_path), "--check"]) == 2
    assert "no song" in capsys.readouterr().err


def test_the_dataset_of_the_original_trainer_reads_back(folder):
    dataset = read_dataset(folder, trigger="neon", place="append")
    with pytest.raises(RequestError, match=r"must end in \.json"):
        write_dataset_json(dataset, folder / "one.flac")
    path = write_dataset_json(dataset, folder / "dataset.json", {folder / "one.flac": 6.5})
    content = json.loads(path.read_text())
    assert content["metadata"]["num_samples"] == 2 and content["samples"][0]["duration"] == 6
    assert content["samples"][0]["audio_path"] == "one.flac" and content["samples"][0]["keyscale"] == "A minor"
    again = read_dataset(path)
    assert again.songs() == dataset.songs()
    assert [each.path for each in again.examples] == [each.path for each in dataset.examples]
    assert [each.genre for each in again.examples] == ["", "rock"]


def test_a_dataset_file_with_gaps(folder):
    samples = [
        {"audio_path": "/elsewhere/one.flac", "filename": "one.flac", "caption": "blues", "lyrics": "[Instrumental]",
         "is_instrumental": True, "bpm": None, "keyscale": "", "timesignature": "N/A", "language": "unknown"},
        {"filename": "two.wav", "genre": "rock", "caption": "long text", "prompt_override": "genre", "lyrics": "la"},
        {"caption": "no path"},
        {"filename": "one.flac", "caption": "again"},
    ]  # fmt: skip
    path = folder / "dataset.json"
    path.write_text(json.dumps({"metadata": {"custom_tag": "neon", "tag_position": "replace"}, "samples": samples}))
    dataset = read_dataset(path)
    assert [each.path.name for each in dataset.examples] == ["one.flac", "two.wav"]
    assert dataset.examples[0].song.instrumental and dataset.examples[0].song.metadata.bpm is None
    assert [song.caption for song in read_dataset(path, place="append").songs()] == ["blues, neon", "rock, neon"]
    assert len(dataset.problems) == 2


def test_genres_replace_a_share_of_the_captions(folder):
    samples = [{"filename": f"{i}.wav", "caption": "caption", "genre": "genre"} for i in range(10)]
    path = folder / "dataset.json"
    path.write_text(json.dumps({"metadata": {"genre_ratio": 30}, "samples": samples}))
    assert sum(song.caption == "genre" for song in read_dataset(path).songs()) == 3


@pytest.mark.parametrize(
    "values",
    [{"bpm": 1e300}, {"bpm": "²"}, {"bpm": []}, {"caption": 5}, {"lyrics": {"a": 1}}, {"keyscale": ["C major"]},
     {"genre": False}, {"use_genre": 1}, {"language": "Klingon"}, {"timesignature": "7/8"}],
)  # fmt: skip
def test_a_wrong_value_is_named_and_the_others_are_used(folder, values):
    (folder / "one.txt").unlink()
    (folder / "one.json").write_text(json.dumps({"caption": "slow blues"} | values))
    dataset = read_dataset(folder)
    assert len(dataset.examples) == 2 and len(dataset.problems) == 1 and "one.json" in str(dataset.problems[0])
    assert not dataset.problems[0].left_out and "\n" not in str(dataset.problems[0])


def test_a_wrong_lrc_is_named(folder):
    (folder / "one.lrc").write_text("words without times")
    (problem,) = read_dataset(folder).problems
    assert "one.lrc" in str(problem) and problem.left_out


@pytest.mark.parametrize("path", ["x" * 5000, "\ud800.wav", "..", 5, "a\0b"])
def test_a_dataset_file_with_a_strange_path(folder, path):
    file = folder / "dataset.json"
    file.write_text(json.dumps({"samples": [{"audio_path": path, "caption": "a"}, {"filename": "two.wav"}]}))
    problems = check_dataset(read_dataset(file, trigger="neon")).problems
    assert sum(problem.left_out for problem in problems) == 1


@pytest.mark.parametrize("text", ["[]", "{", '{"samples": 3}', '{"samples": []}', "\xff"])
def test_a_file_that_is_no_dataset(tmp_path, text):
    path = tmp_path / "dataset.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RequestError):
        read_dataset(path)
