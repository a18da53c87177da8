"""`--best-of N`: the takes that follow their lyrics best."""

from __future__ import annotations

import re

import pytest

from acestep_core import read_settings
from acestep_core.lyrics import capture
from tests.support import tiny_checkpoint

SUNG = ("--lyrics", "words.txt", "--duration", 6, "--steps", 2, "--seed", 5)


@pytest.fixture(autouse=True)
def words(tmp_path):
    (tmp_path / "words.txt").write_text("[Verse]\nslow river\nocean fire", "utf-8")


@pytest.fixture
def heads(monkeypatch):
    size = (tiny_checkpoint.NETWORK.num_hidden_layers, tiny_checkpoint.NETWORK.hidden_size)
    monkeypatch.setitem(capture.RELEASED_HEADS, size, {1: (0, 2)})


def ranked(err: str) -> dict[int, float]:
    (line,) = re.findall(r"^best of \d+: .*", err, re.MULTILINE)
    return {int(seed): float(score) for seed, score in re.findall(r"seed (\d+) ([\d.]+)", line)}


@pytest.mark.usefixtures("heads")
def test_the_best_take_is_kept(acestep, tmp_path):
    code, out, err = acestep("warm piano", *SUNG, "--best-of", 3, "-o", "best.wav")
    assert code == 0, err
    scores = ranked(err)
    assert scores.keys() == {5, 6, 7} and list(scores.values()) == sorted(scores.values(), reverse=True)
    best = next(iter(scores))
    settings = read_settings("best.wav")
    assert settings["seed"] == best and f"seed {best}" in out
    assert settings["lyric_score"] == pytest.approx(scores[best], abs=1e-3)
    # The recipe generates the take again, alone and without a score of its own.
    assert acestep("--from", "best.wav", "-o", "again.wav")[0] == 0
    again = read_settings("again.wav")
    assert again == {name: value for name, value in settings.items() if name != "lyric_score"}


@pytest.mark.usefixtures("heads")
def test_several_takes_are_kept_and_edits_work(acestep, tmp_path):
    code, out, err = acestep("warm piano", *SUNG, "--best-of", 3, "--batch", 2, "-o", "take.wav")
    assert code == 0, err
    seeds = [read_settings(f"take-{i}.wav")["seed"] for i in (1, 2)]
    assert seeds == list(ranked(err))[:2]
    repaint = ("--where", "1-3", "--seed", 9, "--best-of", 2, "-o", "new.wav")
    code, _, err = acestep("repaint", "take-1.wav", *repaint)
    assert code == 0, err
    assert read_settings("new.wav")["seed"] == next(iter(ranked(err)))


def test_unusable_requests_are_refused_before_anything_is_generated(acestep):
    for arguments, message in (
        (["piano", *SUNG, "--best-of", 0], "--best-of must be at least 1"),
        (["piano", *SUNG, "--best-of", 2, "--batch", 3], "--best-of must be at least --batch"),
        (["piano", "--best-of", 2], "no lyrics"),
        (["piano", *SUNG, "--best-of", 2], "no head is known"),
    ):
        code, out, err = acestep(*arguments, "-o", "a.wav")
        assert (code, out) == (2, "") and message in err and "sample" not in err, err
