"""Labels of the planner for songs without text."""

import json
from pathlib import Path

import pytest

from acestep_core import cli, read_dataset, write_audio
from acestep_core.audio import MeasuredMusic
from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, RequestError
from acestep_core.planner.writing import WrittenSong
from acestep_core.song.song import Metadata, Song
from acestep_core.train import labels
from acestep_core.train.labels import label_songs
from tests.support.sounds import music

METADATA = Metadata(bpm=120, key="C major", language="de", duration=6)
QUIET = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(3):
        write_audio(folder / f"{number}.wav", music(5.2, seed=number))
    return folder


@pytest.fixture
def planner_calls(monkeypatch):
    """Replace the planner. Return the codes that it gets."""
    calls = []

    def understand(planner, codes, seeds, *, callbacks):
        callbacks.check("listen")
        calls.append(codes)
        return [WrittenSong(Song(f"song {len(calls)}", "la la", METADATA), {"genres": "rock"})]

    monkeypatch.setattr(labels, "load_planner", lambda *_, **__: None)
    monkeypatch.setattr(labels, "understand", understand)
    return calls


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Replace the measurement, by default with one that finds nothing."""
    values = [MeasuredMusic(None, 0.0, None, 0.0)]
    monkeypatch.setattr(labels, "measure_music", lambda *_: values[-1])
    return values


def content(path):
    return json.loads(path.read_text("utf-8"))


def test_missing_fields_are_filled_and_what_a_person_wrote_stays(songs, tiny_models, planner_calls):
    (songs / "0.txt").write_text("my caption")
    (songs / "1.json").write_text(
        '{"keyscale": "A minor", "bpm": "fast", "mood": "sad", "lyrics": "", "labeled": true}'
    )
    before = (songs / "0.txt").read_bytes()
    report = label_songs(songs, model=tiny_models, **QUIET)
    assert [path.name for path in report.written] == ["0.json", "1.json", "2.json"] and report.complete == 0
    assert len(planner_calls) == 3 and all(len(codes) == 26 for codes in planner_calls)
    zero, one, two = (content(path) for path in report.written)
    assert "caption" not in zero and zero["lyrics"] == "la la" and (songs / "0.txt").read_bytes() == before
    assert (one["keyscale"], one["bpm"], one["mood"], one["lyrics"]) == ("A minor", "fast", "sad", "")
    assert "key" not in one and one["caption"] == "song 2"
    assert two == {
        "caption": "song 3", "lyrics": "la la", "genre": "rock", "bpm": 120, "key": "C major", "time_signature": None,
        "language": "de", "labeled": list(labels.LABELS),
    }  # fmt: skip
    dataset = read_dataset(songs)
    assert [each.song.caption for each in dataset.examples] == ["my caption", "song 2", "song 3"]
    assert dataset.examples[1].song.metadata.key == "A minor"


def test_a_second_call_does_nothing_and_leaves_edited_files(songs, tiny_models, planner_calls):
    label_songs(songs, model=tiny_models, **QUIET)
    values = content(songs / "0.json") | {"caption": "better", "bpm": None}
    (songs / "0.json").write_text(json.dumps(values))
    report = label_songs(songs, model=tiny_models, **QUIET)
    assert not report.written and report.complete == 3 and len(planner_calls) == 3
    assert content(songs / "0.json") == values


@pytest.mark.parametrize(
    "planned, music, bpm, key, names",
    [
        (METADATA, MeasuredMusic(121.0, 0.9, "A minor", 0.9), 120, "C major", []),
        (METADATA, MeasuredMusic(60.2, 0.9, "D minor", 0.4), 120, "C major", []),
        (METADATA, MeasuredMusic(90.4, 0.9, "D minor", 0.9), 90, "D minor", ["bpm", "key"]),
        (METADATA, MeasuredMusic(90.4, 0.4, None, 0.0), 120, "C major", []),
        (Metadata(), MeasuredMusic(90.4, 0.4, "D minor", 0.1), 90, None, ["bpm"]),
    ],
    ids=["agree", "octave and unsure", "contradict", "unsure", "missing"],
)
def test_a_measurement_fills_and_corrects(songs, tiny_models, planner_calls, measured, monkeypatch, planned, music, bpm,
                                          key, names):  # fmt: skip
    measured.append(music)
    monkeypatch.setattr(labels, "understand", lambda *_, **__: [WrittenSong(Song("x", metadata=planned))])
    label_songs(songs, model=tiny_models, fields=["bpm", "key"], **QUIET)
    written = content(songs / "0.json")
    assert (written["bpm"], written["key"], written.get("measured", [])) == (bpm, key, names)
    assert written["labeled"] == ["bpm", "key"]


def test_what_a_person_wrote_is_not_measured(songs, tiny_models, planner_calls, measured):
    measured.append(MeasuredMusic(90.0, 1.0, "D minor", 1.0))
    (songs / "0.json").write_text('{"bpm": 70, "key": "E minor"}')
    label_songs(songs, model=tiny_models, **QUIET)
    zero, one = content(songs / "0.json"), content(songs / "1.json")
    assert (zero["bpm"], zero["key"]) == (70, "E minor") and "measured" not in zero
    assert (one["bpm"], one["key"], one["measured"]) == (90, "D minor", ["bpm", "key"])


def test_an_interrupted_call_continues(songs, tiny_models, planner_calls):
    stop = Callbacks(cancelled=lambda: len(planner_calls) == 2)
    with pytest.raises(Cancelled):
        label_songs(songs, model=tiny_models, callbacks=stop, **QUIET)
    report = label_songs(songs, model=tiny_models, **QUIET)
    assert [path.name for path in report.written] == ["2.json"] and len(planner_calls) == 3


def test_some_fields_alone(songs, tiny_models, planner_calls):
    label_songs(songs, model=tiny_models, fields=["caption", "bpm"], **QUIET)
    assert content(songs / "0.json") == {"caption": "song 1", "bpm": 120, "labeled": ["caption", "bpm"]}
    label_songs(songs, model=tiny_models, fields=["key"], **QUIET)
    assert content(songs / "0.json")["labeled"] == ["caption", "bpm", "key"]


def test_a_song_that_cannot_be_labelled_stops_no_other(songs, tiny_models, planner_calls, monkeypatch):
    (songs / "0.json").write_text("{damaged")
    (songs / "1.wav").write_bytes(b"RIFF")
    understand = labels.understand
    write_audio(songs / "3.wav", music(5.2, seed=3))

    def refuse_first(*arguments, **options):
        if not planner_calls:
            planner_calls.append(())
            raise RequestError("the prompt is too long")
        return understand(*arguments, **options)

    monkeypatch.setattr(labels, "understand", refuse_first)
    report = label_songs(songs, model=tiny_models, **QUIET)
    assert [path.name for path in report.written] == ["3.json"]
    assert sorted(problem.path.name for problem in report.problems if problem.left_out) == ["0.wav", "1.wav", "2.wav"]
    assert (songs / "0.json").read_text() == "{damaged" and not (songs / "2.json").exists()


@pytest.mark.parametrize("arguments, word", [({"fields": ["title"]}, "title"), ({"fields": []}, "fields"),
                                             ({"seed": -1}, "seed")])  # fmt: skip
def test_wrong_arguments(songs, arguments, word):
    with pytest.raises(RequestError, match=word):
        label_songs(songs, **arguments)


def test_a_dataset_file_is_refused(songs):
    (songs / "dataset.json").write_text('{"samples": [{"filename": "0.wav"}]}')
    with pytest.raises(RequestError, match="folder"):
        label_songs(songs / "dataset.json")


def test_a_folder_without_captions_becomes_a_song_with_nano(songs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["label", "songs", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert [Path(each).name for each in out.split()] == ["0.json", "1.json", "2.json"] and "3 songs labelled" in err
    assert all(each.song.caption and each.song.metadata.bpm for each in read_dataset("songs").examples)
    train = ["train", "songs", "--device", "cpu", "--steps", "2", "--rank", "2", "--crop", "6", "-o", "own.safetensors"]
    assert cli.main([*train, "-q"]) == 0
    assert cli.main(["neon", "--lora", "own.safetensors", "--duration", "1", "--device", "cpu", "-o", "own.wav"]) == 0
    assert (tmp_path / "own.wav").stat().st_size > 48_000
