"""Mixed and split stems: gains, delays, headroom, and the distance to a song."""

import math

import pytest
import torch

from acestep_core.audio.mix import Stem, error_of, mix_stems, split_song
from acestep_core.errors import RequestError
from tests.support.sounds import RATE, music

SONG = 0.2 * music(2)
OTHER = 0.1 * music(3).flip(-1)


def test_stems_add_up():
    mix = mix_stems([Stem(SONG), Stem(OTHER)], RATE)
    expected = OTHER.clone()
    expected[:, : SONG.shape[-1]] += SONG
    assert torch.allclose(mix.waveform, expected, atol=1e-7) and mix.gain == 0
    assert torch.equal(mix_stems([Stem(SONG)], RATE).waveform, SONG)


def test_gain_mute_and_delay():
    mix = mix_stems([Stem(SONG, gain=-6), Stem(OTHER, gain=-60), Stem(SONG, delay=0.5)], RATE).waveform
    assert mix.shape[-1] == max(OTHER.shape[-1], SONG.shape[-1] + RATE // 2)
    assert torch.allclose(mix[:, : RATE // 2], SONG[:, : RATE // 2] * 10 ** (-6 / 20))
    assert torch.allclose(mix[:, SONG.shape[-1] : SONG.shape[-1] + RATE // 2], SONG[:, -RATE // 2 :])


def test_a_mono_stem_sounds_on_both_sides():
    mix = mix_stems([Stem(SONG), Stem(OTHER[:1])], RATE).waveform
    assert torch.allclose(mix[:, SONG.shape[-1] :], OTHER[:1, SONG.shape[-1] :].expand(2, -1))
    assert mix_stems([Stem(OTHER[:1])], RATE).waveform.shape[0] == 1


@pytest.mark.parametrize("headroom", [0.0, 1.0, 6.0])
def test_a_loud_sum_is_turned_down_as_a_whole(headroom):
    loud = SONG / SONG.abs().max()
    mix = mix_stems([Stem(loud), Stem(loud)], RATE, headroom)
    assert float(mix.waveform.abs().max()) == pytest.approx(10 ** (-headroom / 20))
    assert torch.allclose(mix.waveform, 2 * loud * 10 ** (mix.gain / 20), atol=1e-6)
    assert mix.gain == pytest.approx(-headroom - 20 * math.log10(2))


def test_stems_that_sum_to_a_song_have_no_distance_from_it():
    drums = 0.5 * SONG.flip(0)
    assert error_of(mix_stems([Stem(drums), Stem(SONG - drums)], RATE).waveform, SONG) < -120
    assert error_of(SONG, SONG) == -math.inf
    assert error_of(0.9 * SONG, SONG) == pytest.approx(-20)
    assert error_of(torch.zeros(2, 5), SONG) == pytest.approx(0)
    assert error_of(SONG, torch.zeros(2, 5)) == math.inf


def test_the_stems_of_a_song_and_their_rest_add_up_to_it():
    split = split_song(SONG, [Stem(0.5 * SONG.flip(0)), Stem(OTHER[:1, :RATE], gain=-3, delay=0.25)], RATE)
    assert split.gain == 0 and {waveform.shape for waveform in split.waveforms} == {SONG.shape}
    assert torch.allclose(sum(split.waveforms), SONG, atol=1e-6)
    assert torch.equal(split.waveforms[0], 0.5 * SONG.flip(0))
    longer = split_song(SONG[:1], [Stem(OTHER)], RATE).waveforms
    assert {waveform.shape for waveform in longer} == {OTHER.shape}
    assert torch.allclose(sum(longer)[:, : SONG.shape[-1]], SONG[:1].expand(2, -1), atol=1e-6)
    assert sum(longer)[:, SONG.shape[-1] :].abs().max() < 1e-6


def test_loud_stems_of_a_song_are_turned_down_together():
    loud = SONG / SONG.abs().max()
    split = split_song(loud, [Stem(-loud)], RATE, headroom=0)
    assert 0.98 < max(float(waveform.abs().max()) for waveform in split.waveforms) <= 1
    assert split.gain == -6.1, "the node shows one decimal, and that must be exact"
    assert torch.allclose(sum(split.waveforms), loud * 10 ** (split.gain / 20), atol=1e-6)


@pytest.mark.parametrize(
    ("work", "keyword"),
    [
        (lambda: mix_stems([], RATE), "stems"),
        (lambda: split_song(SONG, [], RATE), "stems"),
        (lambda: mix_stems([Stem(SONG)], 0), "sample rate"),
        (lambda: mix_stems([Stem(SONG)], RATE, -1.0), "headroom"),
        (lambda: mix_stems([Stem(SONG, delay=599.0)], RATE), "600"),
        (lambda: Stem(SONG, gain=25.0), "gain"),
        (lambda: Stem(SONG, delay=-1.0), "delay"),
        (lambda: Stem(SONG, gain=math.nan), "gain"),
        (lambda: Stem(SONG[0]), "channels"),
        (lambda: Stem(SONG * math.inf), "NaN"),
    ],
)
def test_wrong_values_are_refused(work, keyword):
    with pytest.raises(RequestError, match=keyword):
        work()
