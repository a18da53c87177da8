"""Finished songs have the loudness, ceiling and ends that were asked for."""

import json
import math

import pytest
import torch

from acestep_core.audio import read_audio, write_audio
from acestep_core.audio.finish import TARGETS, Finish, finish_songs, loudness_target
from acestep_core.audio.loudness import measure_loudness
from acestep_core.errors import RequestError
from tests.support.sounds import RATE, music, noise

SOFT = 0.3 * music(6)
DENSE = (2 * music(6)).tanh()


def finished(waveform, **values):
    return finish_songs([waveform], RATE, Finish(**values))[0]


def test_the_defaults_change_nothing():
    song = finished(SOFT)
    assert torch.equal(song.waveform, SOFT) and song.before == song.after and (song.gain, song.note) == (0, "")
    assert Finish().to_dict() == {} and Finish().ceiling is None


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "none"])
def test_the_target_is_reached(target):
    song = finished(DENSE, loudness=target)
    measured = measure_loudness(song.waveform, RATE)
    assert song.note == ""
    for name in ("integrated", "short_term", "range", "true_peak"):
        assert getattr(song.after, name) == pytest.approx(getattr(measured, name), abs=0.01)
    assert measured.integrated == pytest.approx(TARGETS[target], abs=0.2) and measured.true_peak <= -0.9


def test_a_quieter_song_is_only_scaled():
    song = finished(DENSE, loudness=-30)
    assert torch.equal(song.waveform, DENSE * 10 ** (song.gain / 20))


def test_a_song_below_its_ceiling_is_the_same_bit_for_bit():
    assert torch.equal(finished(SOFT, true_peak=-1).waveform, SOFT)


def test_more_limiting_than_sounds_good_is_refused_with_a_note():
    peaks = 0.001 * music(4)
    peaks[:, ::RATE] = 0.9
    song = finished(peaks, loudness="club")
    assert "peak-limited" in song.note and song.after.true_peak <= -0.9 and song.after.integrated < -9.2


@pytest.mark.parametrize(
    ("waveform", "keyword"),
    [
        (torch.zeros(2, RATE), "silent"),
        (1e-6 * noise(2), "silent"),
        (torch.ones(2, 1), "short"),
        (SOFT[:, :1000], "short"),
    ],
)
def test_audio_without_loudness_keeps_its_level(waveform, keyword):
    song = finished(waveform, loudness=-14)
    assert keyword in song.note and song.gain == 0 and torch.isfinite(song.waveform).all()


def test_one_gain_keeps_the_relation_of_songs():
    loud, soft = DENSE, 0.1 * music(6, seed=1)
    first, second = finish_songs([loud, soft], RATE, Finish(loudness=-20), one_gain=True)
    assert first.gain == second.gain
    assert first.after.integrated - second.after.integrated == pytest.approx(
        first.before.integrated - second.before.integrated, abs=0.01
    )
    together = measure_loudness(torch.cat([first.waveform, second.waveform], dim=-1), RATE)
    assert together.integrated == pytest.approx(-20, abs=0.2)
    own = finish_songs([loud, soft], RATE, Finish(loudness=-20))
    assert own[0].after.integrated == pytest.approx(own[1].after.integrated, abs=0.1)
    again = finished(soft, loudness=-20, gain=second.gain)
    assert torch.equal(again.waveform, second.waveform)


def test_ends_change_before_the_loudness_is_measured():
    padded = torch.cat([torch.zeros(2, RATE), DENSE, torch.zeros(2, 2 * RATE)], dim=-1)
    song = finished(padded, loudness=-16, trim=True, fade_in=0.5, fade_out=2)
    assert song.waveform.shape[-1] == pytest.approx(6.5 * RATE, abs=0.05 * RATE)
    assert song.after.integrated == pytest.approx(-16, abs=0.2)
    assert song.waveform[:, -1].abs().max() == 0


def test_music_that_goes_on_fades_out_at_its_ending():
    steady = (0.1 * noise(8)).clamp(-0.5, 0.5)
    song = finished(steady, ending=4)
    assert song.waveform.shape[-1] == 8 * RATE and song.waveform[:, -1].abs().max() == 0
    assert torch.equal(song.waveform[:, : 6 * RATE], steady[:, : 6 * RATE])
    assert torch.equal(finished(torch.cat([SOFT, torch.zeros(2, RATE)], -1), ending=3).waveform[:, : 6 * RATE], SOFT)


def test_the_input_changes_only_in_place():
    waveform = DENSE.clone()
    kept = finished(waveform, loudness=-12, fade_in=1)
    assert torch.equal(waveform, DENSE)
    (changed,) = finish_songs([waveform], RATE, Finish(loudness=-12, fade_in=1), in_place=True)
    assert torch.equal(changed.waveform, kept.waveform) and changed.waveform.data_ptr() == waveform.data_ptr()


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".opus"])
def test_a_written_file_keeps_loudness_and_ceiling(tmp_path, suffix):
    for song in (SOFT, DENSE):
        result = finished(song, loudness=-14)
        write_audio(tmp_path / f"a{suffix}", result.waveform, RATE)
        levels = measure_loudness(read_audio(tmp_path / f"a{suffix}")[0], RATE)
        assert levels.integrated == pytest.approx(-14, abs=0.2)
        assert levels.true_peak <= -1 + (0.1 if suffix in (".wav", ".flac") else 0.5)


@pytest.mark.parametrize(
    ("values", "keyword"),
    [
        ({"loudness": "loud"}, "streaming"),
        ({"loudness": 3}, "loudness"),
        ({"loudness": math.nan}, "loudness"),
        ({"loudness": [1]}, "loudness"),
        ({"true_peak": 1}, "true_peak"),
        ({"true_peak": "x"}, "true_peak"),
        ({"fade_in": -1}, "fade_in"),
        ({"fade_out": 1e9}, "fade_out"),
        ({"fade_out": None}, "fade_out"),
        ({"ending": math.inf}, "ending"),
        ({"trim": 1}, "trim"),
        ({"gain": 99}, "gain"),
    ],
)
def test_other_values_are_refused(values, keyword):
    with pytest.raises(RequestError, match=keyword):
        Finish(**values)
    with pytest.raises(RequestError, match=keyword):
        Finish.from_dict(values)


@pytest.mark.parametrize("waveform", [torch.zeros(2, 0), torch.zeros(1, 2, 5), SOFT * math.nan, torch.zeros(3, 9), "a"])
def test_other_waveforms_are_refused(waveform):
    with pytest.raises(RequestError, match="waveform"):
        finished(waveform)


def test_targets_have_names():
    assert [loudness_target(name) for name in ("Streaming", " apple ", "none", "-14.5", -9, None)] == [
        -14, -16, None, -14.5, -9, None,
    ]  # fmt: skip


def test_a_finish_survives_json():
    finish = Finish("club", true_peak=-2, fade_out=3, trim=True, ending=8, gain=1.5)
    assert Finish.from_dict(json.loads(json.dumps(finish.to_dict()))) == finish
    assert Finish.from_dict({"from_the_future": 1}) == Finish()
    with pytest.raises(RequestError, match="finish"):
        Finish.from_dict([1])
