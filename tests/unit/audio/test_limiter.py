"""The limiter keeps true peaks below a ceiling and changes nothing else."""

import math

import pytest
import torch

from acestep_core.audio.limiter import LOOKAHEAD, limited, reduction_factors
from acestep_core.audio.true_peak import group_peaks, true_peak
from tests.support.sounds import RATE, music, noise, tones

CEILING = 10 ** (-1 / 20)


def limit(waveform: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
    factors = reduction_factors(group_peaks(waveform, RATE) * gain, CEILING, RATE)
    return torch.cat(list(limited(waveform, factors, gain)), dim=-1)


SINE = tones((0, 2), frequency=997)
HARD = {
    "silence": torch.zeros(2, 5000),
    "one sample": torch.ones(2, 1),
    "two samples": torch.tensor([[1.0, -1.0]]),
    "impulse": torch.nn.functional.pad(torch.ones(2, 1), (3000, 3000)),
    "DC": torch.ones(2, RATE),
    "full-scale square": SINE.sign(),
    "0 dBFS sine": SINE,
    "sine between samples": tones((0, 1), frequency=12000.3),
    "loud noise": noise(1, level=2.0),
    "loud music": 6 * music(4),
    "one loud channel": torch.stack([3 * music(2)[0], torch.zeros(2 * RATE)]),
    "mono": 4 * music(2)[:1],
}


@pytest.mark.parametrize("name", HARD)
def test_no_peak_is_above_the_ceiling(name):
    result = limit(HARD[name])
    assert result.shape == HARD[name].shape and torch.isfinite(result).all()
    assert true_peak(result, RATE) <= -1 + 0.1


def test_audio_below_the_ceiling_is_the_same_bit_for_bit():
    quiet = music(3) * (10 ** (-2 / 20) / float(10 ** (true_peak(music(3), RATE) / 20)))
    assert true_peak(quiet, RATE) == pytest.approx(-2, abs=1e-3)
    assert torch.equal(limit(quiet), quiet)


def test_only_the_surroundings_of_a_peak_change():
    quiet = 0.3 * music(4)
    loud = quiet.clone()
    loud[:, 2 * RATE] = 1.0
    changed = (limit(loud) != loud).any(dim=0).nonzero().flatten()
    first, last = (float(changed[i]) / RATE - 2 for i in (0, -1))
    assert -LOOKAHEAD - 0.001 < first < 0 < last < 0.5


def test_both_channels_get_the_same_reduction():
    waveform = torch.stack([2 * music(2)[0], 0.1 * music(2)[0]])
    left, right = limit(waveform)
    assert torch.allclose(left, 20 * right, atol=1e-5)


def test_the_gain_moves_smoothly():
    """A click is a jump of the gain. Here the gain itself is the result, as the input is a loud, very low tone."""
    level = torch.cat([torch.full((RATE,), 0.5), torch.full((RATE // 10,), 2.0), torch.full((RATE,), 0.5)])
    factors = reduction_factors(group_peaks(level.expand(2, -1), RATE), CEILING, RATE)
    gain = torch.cat(list(limited(torch.ones(1, len(level)), factors, 1.0)), dim=-1)[0]
    lowest = CEILING / 2
    assert lowest * 0.8 < gain.min() <= lowest and gain[-1] == 1
    steps = gain.diff()
    assert steps.abs().max() < 1.2 * 2 / (LOOKAHEAD * RATE)  # the slope of a triangular window
    assert steps.diff().abs().max() < 0.002


def test_a_limited_sine_has_little_distortion():
    sine = 1.5 * tones((0, 2), frequency=1000)[:1]
    middle = limit(sine)[0, RATE // 2 : RATE // 2 + RATE]
    spectrum = torch.fft.rfft(middle.double() * torch.hann_window(len(middle), dtype=torch.float64)).abs()
    tone = spectrum[995:1006].square().sum()
    assert 10 * math.log10((spectrum.square().sum() - tone) / tone) < -60
