"""The file of --from and the options that override it."""

import io

import pytest

from acestep_core.cli.inputs import read_recipes


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
