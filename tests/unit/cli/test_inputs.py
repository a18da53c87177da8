"""The file of --from and the options that override it."""

import io
import os
import sys

import pytest

from acestep_core.cli.inputs import read_recipes, read_songs
from acestep_core.lyrics.check import estimate_duration


def read(options):
    (recipe,) = read_recipes(options)
    return recipe


def test_standard_input_is_utf_8_in_every_console(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO("\ufeff夜の歌".encode()), encoding="cp1252")
    monkeypatch.setattr("sys.stdin", console)
    assert read({"caption": "x", "lyrics": "-"}).song.lyrics == "夜の歌"


@pytest.mark.parametrize(
    ("content", "keyword"),
    [
        ('{"songs": []}', "empty"),
        ("", "empty"),
        ("{}", "caption"),
        ('{"songs": [{"caption": "piano"}, {"bpm": 90}]}', "caption"),
    ],
)
def test_a_file_without_text_is_refused(acestep, tmp_path, content, keyword):
    (tmp_path / "s.json").write_text(content)
    code, _, err = acestep("--from", "s.json")
    assert code == 2 and "s.json" in err and keyword in err


NESTED = '{"caption": ' + "[" * 100_000 + "]" * 100_000 + "}"


@pytest.mark.parametrize("command", [[], ["plan"], ["write"], ["listen"]])
@pytest.mark.parametrize("path", ["nested.json", "long" * 70, "long" * 70 + ".json", "long" * 70 + ".flac"])
def test_a_file_that_cannot_be_read_is_refused_in_one_sentence(acestep, tmp_path, command, path):
    (tmp_path / "nested.json").write_text(NESTED)
    source = [path] if command == ["listen"] else ["--from", path]
    code, out, err = acestep(*command, *source, model=False)
    assert (code, out) == (2, "") and err.startswith("acestep: ") and err.count("\n") == 1
    assert ("nested" if path == "nested.json" else "too long") in err


@pytest.mark.parametrize("option", ["--model", "--vae", "--text-encoder"])
def test_a_model_name_that_is_too_long_is_refused_in_one_sentence(acestep, option):
    code, _, err = acestep("piano", option, "long" * 70, model=option != "--model")
    assert code == 1 and err.splitlines()[-1].startswith("acestep: ") and "long" in err


@pytest.mark.skipif(sys.platform == "win32", reason="names are UTF-16 on Windows")
@pytest.mark.parametrize("command", [[], ["plan"], ["write"]])
def test_an_output_that_is_not_utf_8_is_refused_before_a_model_is_loaded(acestep, monkeypatch, command):
    monkeypatch.setattr("acestep_core.load.load_model", None)
    monkeypatch.setattr("acestep_core.planner.load_planner.load_planner", None)
    code, _, err = acestep(*command, "piano", "-o", os.fsdecode(b"\xff.flac"), model=False)
    assert code == 2 and "UTF-8" in err and err.count("\n") == 1


def test_the_caption_of_a_file_may_come_from_the_command_line(tmp_path):
    (tmp_path / "s.json").write_text('{"bpm": 90}')
    song = read({"from": str(tmp_path / "s.json"), "caption": "piano"}).song
    assert (song.caption, song.metadata.bpm) == ("piano", 90)


def test_sampling_settings_do_not_apply_to_another_model(monkeypatch):
    turbo = {"caption": "x", "seed": 1, "model": "turbo", "steps": 8, "guidance_scale": 1.0, "solver": "heun"}
    monkeypatch.setattr("acestep_core.audio.read_settings", lambda path: turbo)
    settings = read({"from": "x.flac", "model": "base"}).settings
    assert (settings.steps, settings.guidance_scale, settings.solver) == (None, None, "heun")
    assert read({"from": "x.flac"}).settings.steps == 8


def test_sampling_settings_do_not_apply_to_another_variant(monkeypatch):
    values = {"caption": "x", "seed": 1, "model": "mine", "vae": "my-vae", "variant": "turbo", "steps": 8, "shift": 2.0}
    monkeypatch.setattr("acestep_core.audio.read_settings", lambda path: values)
    recipe = read({"from": "x.flac", "variant": "base"})
    assert (recipe.settings.steps, recipe.settings.shift) == (None, None)
    assert recipe.origin == {"model": "mine", "vae": "my-vae", "variant": "base"}
    for same in ({"variant": "turbo"}, {"model": "/somewhere/else/mine"}):
        assert read({"from": "x.flac", **same}).settings.steps == 8
    del values["variant"]
    values["model"] = "turbo"
    assert read({"from": "x.flac", "variant": "turbo"}).settings.steps == 8
    assert read({"from": "x.flac", "variant": "base"}).settings.steps is None


def test_a_duration_may_fit_the_lyrics(caplog):
    lyrics = "[Verse]\n" + "\n".join(["we are walking down the road"] * 20)
    (recipe,) = read_recipes({"caption": "pop", "duration": "auto"}, [{"lyrics": lyrics}])
    assert recipe.song.metadata.duration == estimate_duration(lyrics) > 60
    assert "estimated from the lyrics" in caplog.text
    (planned,) = read_recipes({"caption": "pop", "duration": "auto"}, [{"codes": [1, 2, 3, 4, 5]}])
    assert planned.song.metadata.duration is None
    (song,) = read_songs({"caption": "pop", "duration": "auto"})
    assert song.song.metadata.duration is None
