"""Edits of recordings on the command line."""

import json
import os
import re
from pathlib import Path

import pytest
import soundfile
import torch

from acestep_core import RequestError, read_settings
from acestep_core.audio import read_audio, write_audio
from acestep_core.cli.edit_commands import edited_recipe
from acestep_core.cli.edit_inputs import find_recording
from acestep_core.edit.recorded import RecordedEdit
from acestep_core.lyrics import capture
from acestep_core.recipe import Recipe
from tests.support import tiny_checkpoint


@pytest.fixture
def song(acestep):
    assert acestep("warm piano", "--duration", 4, "--steps", 2, "--bpm", 90, "--seed", 5, "-o", "a.wav")[0] == 0
    return read_audio("a.wav")


def test_a_repaint_keeps_the_rest_and_takes_the_text_from_the_tags(acestep, song):
    code, out, err = acestep("repaint", "a.wav", "--where", "1-2", "--steps", 2, "--seed", 1, "-o", "b.wav")
    assert (code, out) == (0, "b.wav: 4 s, seed 1\n"), err
    new = read_audio("b.wav")
    kept = torch.cat((torch.arange(40_000), torch.arange(110_000, song.shape[-1])))
    assert torch.equal(new[..., kept], song[..., kept])
    assert not torch.allclose(new[..., 60_000:80_000], song[..., 60_000:80_000], atol=1e-3)
    settings = read_settings("b.wav")
    assert (settings["caption"], settings["bpm"], settings["seed"]) == ("warm piano", 90, 1)
    assert settings["edit"].items() >= {"operation": "repaint", "source": "a.wav", "where": "1-2"}.items()
    assert "unrecorded" not in settings


def test_an_edited_song_is_made_again_from_its_file(acestep, song, tmp_path):
    acestep("repaint", "a.wav", "--where", "1-2", "--steps", 2, "--seed", 1, "-o", "b.wav")
    code, _, err = acestep("--from", "b.wav", "-o", "c.wav")
    assert code == 0 and "do not record" not in err
    assert (tmp_path / "c.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    write_audio("a.wav", song[0] * 0.5)
    code, _, err = acestep("--from", "b.wav", "-o", "d.wav")
    assert code == 2 and "another file of that name is there" in err
    (tmp_path / "a.wav").unlink()
    code, _, err = acestep("--from", "b.wav", "-o", "d.wav")
    assert code == 2 and "a.wav" in err and "it is not there" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "command, seconds, recorded",
    [
        (["extend", "--after", 2, "--overlap", 0.5], 6, {"operation": "extend", "after": 2.0, "overlap": 0.5}),
        (["extend", "--after", 2, "--where", "0:03"], 5, {"where": "0:03", "after": 2.0}),
        (["cover", "hard rock", "--strength", 0.5], 4, {"operation": "cover", "strength": 0.5}),
        (["cover", "--strength", 0.25, "--blend"], 4, {"operation": "cover", "blend": 0.75}),
        (["cover", "--keep-sound"], 4, {"operation": "cover", "use_codes": False}),
        (["stems", "--extract", "Vocals"], 4, {"operation": "extract", "tracks": ["vocals"]}),
        (["stems", "--add", "drums", "--where", "1-2"], 4, {"operation": "add", "where": "1-2"}),
        (["stems", "--complete", "drums, backing vocals"], 4, {"tracks": ["drums", "backing_vocals"]}),
        (["morph", "hard rock", "--draws", 2], 4, {"operation": "morph", "source_caption": "warm piano", "draws": 2}),
    ],
)
def test_every_edit_has_a_command(acestep, song, command, seconds, recorded):
    variant = ["--variant", "base"] if command[0] == "stems" else []
    name, *options = command
    code, _, err = acestep(name, "a.wav", *options, "--steps", 2, *variant, "-o", "b.flac")
    assert code == 0, err
    assert soundfile.info("b.flac").duration == seconds
    edit = read_settings("b.flac")["edit"]
    assert edit.items() >= recorded.items()


@pytest.mark.parametrize(
    "command, sentence",
    [
        (["repaint", "a.wav", "--where", "7-9"], "reaches out of the song"),
        (["repaint", "a.wav", "--where", "9-x"], "range must be two numbers"),
        (["repaint", "a.wav", "--where", "chorus"], "a.wav has no lyrics in its tags"),
        (["repaint", "missing.wav", "--where", "1-2"], "missing.wav cannot be read"),
        (["extend", "a.wav"], "nothing to add"),
        (["extend", "a.wav", "--before", 2, "--where", "3"], "nothing is added there"),
        (["extend", "a.wav", "--after", 2, "--where", "3-x"], "range must be two numbers"),
        (["stems", "a.wav", "--extract", "kazoo"], "unknown track 'kazoo'"),
        (["stems", "a.wav", "--extract", "drums", "--where", "1-2"], "works on the whole song"),
        (["cover", "plain.wav"], "plain.wav has no tags that describe it"),
        (["morph", "plain.wav", "hard rock"], "--source-caption: missing"),
        (["cover", "a.wav", "--strength", 2], "strength must be a number from 0 to 1"),
        (["cover", os.devnull], "it is not a file"),
        (["morph", "a.wav", "x", "--lyrics", "-", "--source-lyrics", "-"], "--lyrics and --source-lyrics: only one"),
    ],
)
def test_edits_that_cannot_be_made_say_why(acestep, song, command, sentence):
    write_audio("plain.wav", song[0])
    code, _, err = acestep(*command, "-o", "b.wav")
    message = err.strip().splitlines()[-1]
    assert code == 2 and sentence in message


def test_the_recording_stays(acestep, song):
    before = Path("a.wav").read_bytes()
    sentence = "output: a.wav is the recording that is edited; choose another name"
    code, _, err = acestep("repaint", "a.wav", "--where", "1-2", "--steps", 2, "-o", "a.wav")
    assert code == 2 and sentence in err
    assert acestep("repaint", "a.wav", "--where", "1-2", "--steps", 2, "-o", "b.wav")[0] == 0
    code, _, err = acestep("--from", "b.wav", "-o", "a.wav")
    assert code == 2 and sentence in err
    assert Path("a.wav").read_bytes() == before


def test_a_recording_that_changes_in_between_is_refused(song):
    options = {"file": "a.wav", "where": "1-2"}
    edited = edited_recipe("repaint", options)
    assert edited.packed().data == Path("a.wav").read_bytes()
    write_audio("a.wav", song[0] / 2)
    with pytest.raises(RequestError, match=r"a\.wav was changed"):
        edited.recording()
    assert edited.packed().data is None


@pytest.mark.parametrize("source", ["../a.wav", "/a.wav", "c:\\a.wav", "x/y.wav", "", "..", 3])
def test_a_file_cannot_name_a_recording_elsewhere(source):
    with pytest.raises(RequestError, match="source"):
        RecordedEdit.from_dict({"operation": "repaint", "source": source, "sha256": "0"})


def test_parts_are_found_by_name(acestep, monkeypatch, tmp_path):
    size = (tiny_checkpoint.NETWORK.num_hidden_layers, tiny_checkpoint.NETWORK.hidden_size)
    monkeypatch.setitem(capture.RELEASED_HEADS, size, {1: (0, 2)})
    (tmp_path / "words.txt").write_text("[Verse]\nslow river\n[Chorus]\nocean fire", "utf-8")
    sung = ("--lyrics", "words.txt", "--duration", 6, "--steps", 2, "--seed", 5)
    assert acestep("warm piano", *sung, "-o", "a.wav")[0] == 0
    code, _, err = acestep("repaint", "a.wav", "--where", "chorus", "--steps", 2, "-o", "b.wav")
    assert code == 0, err
    edit = read_settings("b.wav")["edit"]
    assert re.fullmatch(r"[\d.]+-[\d.]+", edit["where"])
    assert f"Chorus is {edit['where']} seconds" in err
    code, _, err = acestep("repaint", "a.wav", "--where", "bridge", "--steps", 2, "-o", "c.wav")
    assert code == 2 and "they have Verse, Chorus" in err
    assert acestep("--from", "b.wav", "-o", "d.wav")[0] == 0  # seconds alone, without the search
    assert (tmp_path / "d.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    code, _, err = acestep("extend", "a.wav", "--after", 2, "--where", "verse", "--steps", 2, "-o", "e.wav")
    assert code == 0, err
    seam = float(read_settings("e.wav")["edit"]["where"])
    assert 0 < seam < 6 and f"continues after Verse, at {seam:g} seconds" in err
    assert soundfile.info("e.wav").duration == pytest.approx(seam + 2, abs=0.04)
    kept = int(48_000 * (seam - 0.1))
    assert torch.equal(read_audio("e.wav")[..., :kept], read_audio("a.wav")[..., :kept])


def test_an_edit_survives_json():
    edit = RecordedEdit("add", "a.wav", "0", where="1-2", tracks=("drums",), mode="aggressive")
    values = json.loads(json.dumps({"seed": 1, "caption": "x", "edit": edit.to_dict()}))
    assert values["edit"].keys() == {"operation", "source", "sha256", "where", "tracks", "mode"}
    assert Recipe.from_dict(values).recorded_edit == edit


@pytest.mark.parametrize(
    "given", [{"operation": "sing"}, {"tracks": "drums"}, {"overlap": "1"}, {"use_codes": "no"}, {"where": [1]}]
)
def test_broken_edits_of_a_file_are_refused(given):
    known = {"operation": "repaint", "source": "a.wav", "sha256": "0"}
    assert Recipe.from_dict({"seed": 1, "edit": known}).recorded_edit is not None
    with pytest.raises(RequestError, match=f"edit: .*{next(iter(given))}"):
        Recipe.from_dict({"seed": 1, "edit": {**known, **given}})
    for other in ([], "x", {}):
        with pytest.raises(RequestError, match="edit"):
            Recipe.from_dict({"seed": 1, "edit": other})


def test_a_missing_recording_names_a_command_that_exists(tmp_path):
    with pytest.raises(RequestError, match="acestep stems FILE"):
        find_recording(RecordedEdit("extract", "a.wav", "0"), [tmp_path])
