"""Plans made audible by the command: files of songs with audio codes go in, and stay with the song."""

import io
from dataclasses import replace

import pytest
import torch

from acestep_core import pipeline, read_settings, write_audio
from acestep_core.files import write_text
from acestep_core.song.song import Metadata, Song
from acestep_core.song.song_file import SavedSong, save_songs, to_json
from tests.support import tiny_text
from tests.unit.cli import test_song_command

tiny_tokenizer_dir, models, acestep = tiny_text.tiny_tokenizer_dir, test_song_command.models, test_song_command.acestep

PLAN = SavedSong(Song("warm piano", "[Verse]\nriver", Metadata(bpm=90, duration=0.9)), (1, 2, 3, 40, 50), "Ambient", 7)


def test_a_plan_becomes_sound_and_its_codes_stay_with_it(acestep, tmp_path):
    write_text(tmp_path / "plan.json", to_json([PLAN]))
    options = ("--from", "plan.json", "--steps", 2)
    code, out, _ = acestep(*options, "-o", "a.wav")
    assert (code, out) == (0, "a.wav: 0.88 s, seed 7\n")
    told = read_settings("a.wav")
    assert told["codes"] == [1, 2, 3, 40, 50] and {"genres", "score", "unrecorded"}.isdisjoint(told)
    assert (told["caption"], told["bpm"], told["seed"]) == ("warm piano", 90, 7)
    acestep("--from", "a.wav", "-o", "again.wav")
    acestep(*options, "--no-codes", "-o", "without.wav")
    acestep("warm piano", "--codes", "plan.json", "--bpm", 90, "--seed", 7, "--steps", 2, "-o", "other.wav")
    first, again, without, other = (
        (tmp_path / f"{name}.wav").read_bytes() for name in ("a", "again", "without", "other")
    )
    assert first == again != without and "codes" not in read_settings("without.wav")
    # Other words over the same codes; they say how long it is.
    assert other not in (first, without)
    assert (read_settings("other.wav")["duration"], read_settings("other.wav")["codes"]) == (1.0, told["codes"])


def test_a_plan_comes_through_a_pipe(acestep, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(to_json([PLAN]).encode()), encoding="cp1252"))
    assert acestep("--from", "-", "--steps", 1, "-q", "-o", "a.wav")[:2] == (0, "a.wav\n")
    assert len(read_settings("a.wav")["codes"]) == 5


def test_several_plans_become_several_songs(acestep, tmp_path):
    other = replace(PLAN, song=Song("drums", metadata=Metadata(duration=0.4)), codes=(9, 8), seed=20)
    save_songs(tmp_path / "plans.json", [PLAN, other])
    _, out, _ = acestep("--from", "plans.json", "--batch", 2, "--steps", 1, "-q", "-o", "a.wav")
    assert out == "a-1.wav\na-2.wav\na-3.wav\na-4.wav\n"
    told = [read_settings(name) for name in out.split()]
    assert [each["seed"] for each in told] == [7, 8, 20, 21]
    assert [len(each["codes"]) for each in told] == [5, 5, 2, 2]
    write_text(tmp_path / "other.json", to_json([other]))
    acestep("--from", "plans.json", "--steps", 1, "-q", "-o", "b.wav")
    acestep("--from", "other.json", "--steps", 1, "-q", "-o", "alone.wav")
    assert (tmp_path / "b-2.wav").read_bytes() == (tmp_path / "alone.wav").read_bytes()
    _, out, _ = acestep("flute", "--codes", "plans.json", "--seed", 1, "--steps", 1, "-q", "-o", "c.wav")
    assert [len(read_settings(name)["codes"]) for name in out.split()] == [5, 2]


def test_what_a_file_does_not_tell_is_said(acestep):
    settings = {"caption": "x", "seed": 1, "duration": 1.0, "unrecorded": ["a recording (repaint)", "a retake"]}
    write_audio("a.wav", torch.rand(2, 4800), settings=settings)
    code, _, err = acestep("--from", "a.wav", "--steps", 1, "-o", "b.wav")
    assert code == 0 and "unrecorded" not in read_settings("b.wav")
    (said,) = [line for line in err.splitlines() if "a.wav" in line]
    assert said == (
        "a.wav was made of more than its tags can tell: a recording (repaint), a retake. This is another song, of its "
        "words"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--from", "plan.json", "--duration", "60"],
            "codes are those of 1 seconds, and the song shall last 60: have it",
        ),
        (["--from", "long.json"], "codes are those of 0.4 seconds, and the song shall last 5"),
        (["--from", "tempo.json"], "tempo.json: 'tempo' is nothing that a song has; it has caption, lyrics, bpm"),
        (["x", "--codes", "bare.json"], "bare.json holds no audio codes; Plan Song and `acestep plan` write some"),
        (["--from", "two.json", "--codes", "three.txt"], "three.txt has codes for 3 songs, and there are 2"),
        (["--from", "gone.json"], "the song file gone.json cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_played_is_one_sentence(acestep, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setattr(pipeline, "load_model", None)
    contents = {
        "plan.json": to_json([PLAN]),
        "long.json": '{"caption": "x", "codes": "1, 2", "duration": 5}',
        "tempo.json": '{"caption": "x", "tempo": 90}',
        "bare.json": '{"caption": "x"}',
        "two.json": to_json([PLAN, PLAN]),
        "three.txt": "1\n2\n3\n",
    }
    for name, content in contents.items():
        write_text(tmp_path / name, content)
    code, out, err = acestep(*arguments, model=False)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
