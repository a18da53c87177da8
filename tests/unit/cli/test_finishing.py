"""Finish songs on the command line."""

import pytest
import torch

from acestep_core import measure_loudness, read_audio, read_settings


def levels(path):
    return measure_loudness(read_audio(path)[0], 48000)


def test_a_song_at_a_target_is_generated_again_from_its_file(acestep, tmp_path):
    code, out, _ = acestep("piano", "--duration", 2, "--seed", 3, "--loudness", "apple", "--fade-out", 1, "-o", "a.wav")
    assert code == 0 and "LUFS" in out and "dBTP" in out
    assert "no tempo, " in out  # of two seconds
    assert levels("a.wav").integrated == pytest.approx(-16, abs=0.2) and levels("a.wav").true_peak <= -0.9
    assert read_settings("a.wav")["finish"] == {"loudness": -16.0, "fade_out": 1.0}
    assert acestep("--from", "a.wav", "-o", "b.wav")[0] == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    acestep("--from", "a.wav", "--loudness", "-20", "-o", "c.wav")
    assert levels("c.wav").integrated == pytest.approx(-20, abs=0.2)
    assert read_settings("c.wav")["finish"] == {"loudness": -20.0, "fade_out": 1.0}
    acestep("--from", "a.wav", "--loudness", "none", "--fade-out", 0, "-o", "d.wav")
    assert "finish" not in read_settings("d.wav")


def test_without_options_the_song_stays_as_it_is(acestep, tmp_path):
    acestep("piano", "--duration", 1, "--seed", 3, "-o", "a.wav")
    acestep("piano", "--duration", 1, "--seed", 3, "--loudness", "none", "--no-trim", "-o", "b.wav")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_levels_are_logged_before_and_after(acestep):
    _, _, err = acestep("piano", "--duration", 1, "--seed", 3, "--loudness", -20, "-v")
    (line,) = (line for line in err.splitlines() if line.startswith("finish, seed 3"))
    assert line.count("LUFS") == 2 and "→ -20.0 LUFS" in line
    _, _, err = acestep("piano", "--duration", 0.2, "--loudness", -20)
    assert "too short" in err


def test_one_gain_for_a_batch_is_recorded(acestep, tmp_path):
    code, _, _ = acestep(
        "piano", "--duration", 1, "--batch", 2, "--seed", 3, "--no-normalize", "--loudness", -20, "--one-gain",
        "-o", "a.wav",
    )  # fmt: skip
    first, second = (read_settings(f"a-{i}.wav")["finish"]["gain"] for i in (1, 2))
    assert code == 0 and first == second
    acestep("--from", "a-2.wav", "-o", "b.wav")
    assert torch.allclose(read_audio("b.wav"), read_audio("a-2.wav"), atol=1e-4)  # alone, not in a batch of 2
    acestep("--from", "a-2.wav", "--loudness", -25, "-o", "c.wav")
    assert "gain" not in read_settings("c.wav")["finish"]


def test_an_ending_adds_seconds_and_ends_the_song_within_them(acestep):
    _, out, _ = acestep("piano", "--duration", 2, "--seed", 3, "--ending", 1, "-o", "a.wav")
    assert 2 <= float(out.split(": ")[1].split(" s")[0]) <= 3
    settings = read_settings("a.wav")
    assert settings["duration"] == 2 and settings["finish"] == {"ending": 1.0}
    acestep("--from", "a.wav", "-o", "b.wav")
    assert torch.equal(read_audio("a.wav"), read_audio("b.wav"))


def test_an_edit_does_not_take_the_finish_of_its_source(acestep):
    acestep("piano", "--duration", 6, "--seed", 3, "--loudness", -20, "-o", "a.wav")
    acestep("repaint", "a.wav", "--where", "1-2", "-o", "b.wav")
    assert "finish" not in read_settings("b.wav")
    assert torch.equal(read_audio("a.wav")[..., 4 * 48000 :], read_audio("b.wav")[..., 4 * 48000 :])
    acestep("repaint", "a.wav", "--where", "1-2", "--loudness", -23, "-o", "c.wav")
    assert levels("c.wav").integrated == pytest.approx(-23, abs=0.2)


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (["--loudness", "loud"], "streaming, apple, broadcast, club, none"),
        (["--loudness", "3"], "loudness"),
        (["--true-peak", "1"], "true_peak"),
        (["--fade-in=-1"], "fade_in"),
        (["--fade-out", "nan"], "fade_out"),
        (["--ending", "100"], "ending"),
    ],
)
def test_other_values_are_refused_before_a_model_is_loaded(acestep, monkeypatch, arguments, keywords):
    monkeypatch.setattr("acestep_core.checkpoints.build.load_network", None)
    code, _, err = acestep("piano", "--device", "cpu", *arguments, model=False)
    assert code == 2 and err.startswith("acestep: ") and keywords in err and err.count("\n") == 1
