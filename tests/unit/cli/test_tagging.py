"""Write tags of songs on the command line."""

import pytest

from acestep_core import read_settings, read_tags
from acestep_core.audio import Tags


def test_tags_hold_title_lyrics_and_metadata(acestep, tmp_path):
    (tmp_path / "song.txt").write_text("[Verse]\nslow river", encoding="utf-8")
    (tmp_path / "song.lrc").write_text("[00:00.50]slow river\n", encoding="utf-8")
    code, _, _ = acestep(
        "piano", "--duration", 1, "--seed", 7, "--bpm", 90, "--key", "C# minor", "--language", "en", "--lyrics",
        "song.txt", "--title", "Rivière 🎵", "--artist", "me", "--lrc", "song.lrc", "-o", "a.mp3",
    )  # fmt: skip
    expected = Tags("Rivière 🎵", "me", "", "[Verse]\nslow river", "[00:00.50]slow river", 90, "C# minor", "en")
    assert code == 0 and read_tags("a.mp3") == expected and read_settings("a.mp3")["seed"] == 7
    acestep("--from", "a.mp3", "--title", "other", "--seed", 8, "-o", "b.opus")
    other = read_tags("b.opus")
    assert (other.title, other.artist, other.bpm, other.timed_lyrics) == ("other", "me", 90, "")


def test_a_song_has_tags_only_if_they_are_asked_for(acestep):
    acestep("piano", "--duration", 1, "--bpm", 90, "-o", "a.flac")
    assert read_tags("a.flac") == Tags()
    acestep("piano", "--duration", 1, "--bpm", 90, "--tags", "-o", "b.flac")
    assert read_tags("b.flac") == Tags(bpm=90)


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (["--title", "a\ud800"], "title"),
        (["--lrc", "missing.lrc"], "LRC file missing.lrc"),
        (["--lrc", "plain.txt"], "timed_lyrics"),
        (["--lrc", "-", "--lyrics", "-"], "--lyrics and --lrc"),
    ],
)
def test_bad_tags_are_refused_before_a_model_is_loaded(acestep, monkeypatch, tmp_path, arguments, keywords):
    (tmp_path / "plain.txt").write_text("no times")
    monkeypatch.setattr("acestep_core.checkpoints.build.load_network", None)
    code, _, err = acestep("piano", "--device", "cpu", *arguments, model=False)
    assert code == 2 and err.startswith("acestep: ") and keywords in err and err.count("\n") == 1
