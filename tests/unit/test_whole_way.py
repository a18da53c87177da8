"""The whole way with nano, offline: a line becomes a song, a plan, sound, and is heard again, each command reading what
the one before it wrote."""

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
    heard = acestep("listen", "song.flac", "--seed", "5", output="h.json")

    # What was asked for stays what it is, all the way.
    assert {(song["duration"], song["language"]) for song in (written, planned)} == {(10, "en")}
    assert written["genres"] and planned == written | {
        name: planned[name] for name in ("time_signature", "codes", "seed")
    }
    codes = parse_codes(planned["codes"])
    assert planned["time_signature"] == "3" and len(codes) == 50
    told = read_settings("song.flac")
    assert told["codes"] == list(codes) and told["seed"] == 4
    assert {name: told[name] for name in METADATA_FIELDS} == {name: planned[name] for name in METADATA_FIELDS}
    assert told["lyrics"] == written["lyrics"]
    assert read_audio("song.flac").shape[-1] == 10 * SAMPLE_RATE

    # What is heard is a song again: every fact one that there is.
    assert heard["duration"] == 10 and len(parse_codes(heard["codes"])) == 50 and heard["caption"].strip()
    assert str(heard["bpm"]) in VALUES["bpm"] and heard["time_signature"] in VALUES["timesignature"]
    assert heard["language"] in VALUES["language"]
    assert heard["key"] in {Metadata(key=key).key for key in VALUES["keyscale"]}
    (kept,) = load_songs("h.json")
    assert kept.to_dict() == heard
