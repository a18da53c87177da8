"""Lyric times on the command line."""

from __future__ import annotations

import pytest

from acestep_core.lyrics import capture
from acestep_core.lyrics.formats import parse_times
from tests.support import tiny_checkpoint


@pytest.fixture(autouse=True)
def heads(monkeypatch):
    size = (tiny_checkpoint.NETWORK.num_hidden_layers, tiny_checkpoint.NETWORK.hidden_size)
    monkeypatch.setitem(capture.RELEASED_HEADS, size, {1: (0, 2)})


def test_times_are_printed_or_written_beside_the_song(acestep, tmp_path):
    (tmp_path / "words.txt").write_text("[Verse]\nslow river\nocean fire", "utf-8")
    sung = ("--lyrics", "words.txt", "--duration", 6, "--steps", 2, "--seed", 5)
    assert acestep("warm piano", *sung, "-o", "a.wav")[0] == 0
    code, out, err = acestep("times", "a.wav")
    assert code == 0 and "2 lines" in err, err
    printed = parse_times(out)
    assert [line.text for line in printed.lines] == ["slow river", "ocean fire"] and printed.duration == 6

    code, out, _ = acestep("times", "a.wav", "--formats", "json, srt", "--quiet")
    assert (code, out.split()) == (0, ["a.lyrics.json", "a.srt"])
    times = parse_times((tmp_path / "a.lyrics.json").read_text("utf-8"))
    assert times.score is not None and [section.label for section in times.sections] == ["Verse"]

    # Other lyrics may be asked about.
    (tmp_path / "other.txt").write_text("love heart", "utf-8")
    assert "love heart" in acestep("times", "a.wav", "--lyrics", "other.txt")[1]


def test_unusable_requests_are_refused_before_the_model_is_loaded(acestep):
    assert acestep("warm piano", "--duration", 2, "--steps", 1, "-o", "a.wav")[0] == 0
    for arguments, message in (
        (["a.wav"], "--lyrics"),
        (["a.wav", "--formats", "lrc,ass"], "'ass' of lyric times is unknown"),
        (["a.wav", "--formats", "lrc,elrc"], "lrc and elrc"),
        (["missing.wav"], "missing.wav"),
    ):
        code, out, err = acestep("times", *arguments)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1
