"""Silence, fades and the end of the music."""

import pytest
import torch

from acestep_core.audio.ends import fade_in, fade_out, find_ending, sounding_part
from tests.support.sounds import RATE, music, noise


def silence(seconds: float) -> torch.Tensor:
    return torch.zeros(2, round(seconds * RATE))


def test_silence_is_trimmed_with_a_tail():
    song = torch.cat([silence(1), music(2), 1e-4 * noise(3)], dim=-1)  # ends with noise at −100 dBFS
    start, end = sounding_part(song, RATE)
    assert 0.97 * RATE <= start <= RATE and 3.4 * RATE <= end <= 3.52 * RATE
    assert sounding_part(music(2), RATE)[1] == 2 * RATE


@pytest.mark.parametrize("samples", [1, 7, 5000])
def test_a_silent_waveform_is_kept(samples):
    assert sounding_part(torch.zeros(2, samples), RATE) == (0, samples)
    assert sounding_part(torch.ones(2, samples), RATE) == (0, samples)


def test_fades_have_equal_power():
    waveform = torch.ones(2, 3 * RATE)
    fade_in(waveform, RATE)
    fade_out(waveform, RATE)
    assert waveform[0, 0] == 0 and waveform[0, -1] == 0
    assert torch.equal(waveform[:, RATE : 2 * RATE], torch.ones(2, RATE))
    assert waveform[0, RATE // 2] == pytest.approx(0.5**0.5, abs=1e-4)
    assert torch.allclose(waveform[:, :RATE] ** 2 + waveform[:, 2 * RATE :] ** 2, torch.ones(()), atol=1e-4)


def test_a_fade_longer_than_the_song_is_shortened():
    waveform = torch.ones(1, 10)
    fade_out(waveform, RATE)
    fade_in(waveform, 0)
    assert waveform[0, 0] > 0.9 and waveform[0, -1] == 0
    fade_in(waveform[:, :1], 1)
    assert waveform[0, 0] == 0


def test_the_music_ends_before_the_file():
    echo = torch.exp(-torch.arange(4 * RATE) / (0.3 * RATE))
    song = torch.cat([music(10), music(4, seed=1) * echo], dim=-1)
    end, ends = find_ending(song, RATE, 6)
    assert ends and 10.5 * RATE < end < 12.5 * RATE


def test_a_second_song_after_the_end_is_dropped():
    song = torch.cat([music(10), 1e-3 * noise(1.5), music(5, seed=1)], dim=-1)
    end, ends = find_ending(song, RATE, 10)
    assert ends and 10 * RATE <= end <= 10.6 * RATE
    assert find_ending(song, RATE, 3) == (song.shape[-1], False)  # only the last seconds count


def test_music_without_an_end_ends_in_a_pause():
    song = music(20)
    song[:, 16 * RATE : round(16.3 * RATE)] *= 0.05
    end, ends = find_ending(song, RATE, 10)
    assert not ends and 16 * RATE < end <= 16.3 * RATE
    steady = 0.3 * noise(10).clamp(-2, 2)
    assert find_ending(steady, RATE, 10) == (10 * RATE, False)


@pytest.mark.parametrize("samples", [1, 100, 9600])
def test_silent_and_very_short_songs_have_an_end(samples):
    for waveform in (torch.zeros(2, samples), torch.ones(2, samples)):
        assert find_ending(waveform, RATE, 60)[0] == samples
