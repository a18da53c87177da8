"""All commands in a row with nano, offline: write, plan, generate, listen. Each reads the file of the one before."""

from __future__ import annotations

import json

import pytest

from acestep_core import cli, read_audio, read_settings
from acestep_core.config import SAMPLE_RATE
from acestep_core.planner.grammar import VALUES
from acestep_core.song.codes import parse_codes
from acestep_core.song.song import Metadata
from acestep_core.song.song_file import METADATA_FIELDS, load_songs


@pytest.fixture
def acestep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, output):
        assert cli.main([*arguments, "--device", "cpu", "--dtype", "float32", "--quiet", "-o", output]) == 0
        return json.loads((tmp_path / output).read_text("utf-8")) if output.endswith(".json") else None

    return run


def test_from_one_line_to_sound_and_back(acestep):
    written = acestep("write", "a slow waltz", "--duration", "10", "--language", "en", "--seed", "3", output="w.json")
    planned = acestep("plan", "--from", "w.json", "--time-signature", "3", "--seed", "4", output="p.json")
    acestep("--from", "p.json", "--steps", "4", output="song.flac")
    described = acestep("listen", "song.flac", "--seed", "5", output="h.json")

    # Requested values never change.
    assert {(song["duration"], song["language"]) for song in (written, planned)} == {(10, "en")}
    assert written["genres"] and planned == written | {
        name: planned[name] for name in ("time_signature", "codes", "seed")
    }
    codes = parse_codes(planned["codes"])
    assert planned["time_signature"] == "3" and len(codes) == 50
    tags = read_settings("song.flac")
    assert tags["codes"] == list(codes) and tags["seed"] == 4
    assert {name: tags[name] for name in METADATA_FIELDS} == {name: planned[name] for name in METADATA_FIELDS}
    assert tags["lyrics"] == written["lyrics"]
    assert read_audio("song.flac").shape[-1] == 10 * SAMPLE_RATE

    # The description is a valid song.
    assert described["duration"] == 10 and len(parse_codes(described["codes"])) == 50 and described["caption"].strip()
    assert str(described["bpm"]) in VALUES["bpm"] and described["time_signature"] in VALUES["timesignature"]
    assert described["language"] in VALUES["language"]
    assert described["key"] in {Metadata(key=key).key for key in VALUES["keyscale"]}
    (loaded,) = load_songs("h.json")
    assert loaded.to_dict() == described
