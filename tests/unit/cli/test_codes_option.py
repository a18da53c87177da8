"""Generate songs from audio codes, with --from and --codes."""

import io
from dataclasses import replace

import pytest
import torch

from acestep_core import pipeline, read_settings, write_audio
from acestep_core.files import write_text
from acestep_core.song.song import Metadata, Song
from acestep_core.song.song_file import SavedSong, save_songs, to_json

PLAN = SavedSong(Song("warm piano", "[Verse]\nriver", Metadata(bpm=90, duration=0.9)), (1, 2, 3, 40, 50), "Ambient", 7)


def test_the_codes_of_a_plan_are_used_and_recorded(acestep, tmp_path):
    write_text(tmp_path / "plan.json", to_json([PLAN]))
    options = ("--from", "plan.json", "--steps", 2)
    code, out, _ = acestep(*options, "-o", "a.wav")
    assert (code, out) == (0, "a.wav: 0.88 s, seed 7\n")
    settings = read_settings("a.wav")
    assert settings["codes"] == [1, 2, 3, 40, 50] and {"genres", "score", "unrecorded"}.isdisjoint(settings)
    assert (settings["caption"], settings["bpm"], settings["seed"]) == ("warm piano", 90, 7)
    acestep("--from", "a.wav", "-o", "again.wav")
    acestep(*options, "--no-codes", "-o", "without.wav")
    acestep("warm piano", "--codes", "plan.json", "--bpm", 90, "--seed", 7, "--steps", 2, "-o", "other.wav")
    first, again, without, other = (
        (tmp_path / f"{name}.wav").read_bytes() for name in ("a", "again", "without", "other")
    )
    assert first == again != without and "codes" not in read_settings("without.wav")
    # Another text with the same codes, which set the duration.
    assert other not in (first, without)
    assert (read_settings("other.wav")["duration"], read_settings("other.wav")["codes"]) == (1.0, settings["codes"])


def test_a_plan_is_read_from_standard_input(acestep, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(to_json([PLAN]).encode()), encoding="cp1252"))
    assert acestep("--from", "-", "--steps", 1, "-q", "-o", "a.wav")[:2] == (0, "a.wav\n")
    assert len(read_settings("a.wav")["codes"]) == 5


def test_several_plans_give_several_songs(acestep, tmp_path):
    other = replace(PLAN, song=Song("drums", metadata=Metadata(duration=0.4)), codes=(9, 8), seed=20)
    save_songs(tmp_path / "plans.json", [PLAN, other])
    _, out, _ = acestep("--from", "plans.json", "--batch", 2, "--steps", 1, "-q", "-o", "a.wav")
    assert out == "a-1.wav\na-2.wav\na-3.wav\na-4.wav\n"
    settings = [read_settings(name) for name in out.split()]
    assert [item["seed"] for item in settings] == [7, 8, 20, 21]
    assert [len(item["codes"]) for item in settings] == [5, 5, 2, 2]
    write_text(tmp_path / "other.json", to_json([other]))
    acestep("--from", "plans.json", "--steps", 1, "-q", "-o", "b.wav")
    acestep("--from", "other.json", "--steps", 1, "-q", "-o", "alone.wav")
    assert (tmp_path / "b-2.wav").read_bytes() == (tmp_path / "alone.wav").read_bytes()
    _, out, _ = acestep("flute", "--codes", "plans.json", "--seed", 1, "--steps", 1, "-q", "-o", "c.wav")
    assert [len(read_settings(name)["codes"]) for name in out.split()] == [5, 2]


def test_unrecorded_inputs_give_a_warning(acestep):
    settings = {"caption": "x", "seed": 1, "duration": 1.0, "unrecorded": ["a recording (repaint)", "a retake"]}
    write_audio("a.wav", torch.rand(2, 4800), settings=settings)
    code, _, err = acestep("--from", "a.wav", "--steps", 1, "-o", "b.wav")
    assert code == 0 and "unrecorded" not in read_settings("b.wav")
    (warning,) = [line for line in err.splitlines() if "a.wav" in line]
    assert "a recording (repaint), a retake" in warning


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (["--from", "plan.json", "--duration", "60"], "duration: 60 seconds, but the audio codes last only 1;"),
        (["--from", "long.json"], "duration: 5 seconds, but the audio codes last only 0.4;"),
        (["--from", "tempo.json"], "tempo.json: unknown field 'tempo'"),
        (["x", "--codes", "bare.json"], "bare.json has no audio codes"),
        (["--from", "two.json", "--codes", "three.txt"], "three.txt has codes for 3 songs"),
        (["--from", "gone.json"], "song file gone.json"),
    ],
)
def test_an_unusable_plan_is_refused(acestep, monkeypatch, tmp_path, arguments, keywords):
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
    assert (code, out) == (2, "") and keywords in err and err.count("\n") == 1
