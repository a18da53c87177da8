import pytest
import torch

from acestep_core.audio import resample


def sine(rate: int, frequency: float, seconds: float = 1.0) -> torch.Tensor:
    return torch.sin(2 * torch.pi * frequency * torch.arange(int(rate * seconds), dtype=torch.float64) / rate)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000])
def test_a_tone_keeps_its_pitch_level_and_phase(rate):
    wave = torch.stack([sine(rate, 440), 0.5 * sine(rate, 1000)])[None].float()
    result = resample(wave, rate)
    expected = torch.stack([sine(48000, 440), 0.5 * sine(48000, 1000)])[None].float()
    assert result.shape == expected.shape and result.dtype == torch.float32
    middle = slice(4800, -4800)  # the filter rings at the ends
    assert (result - expected)[..., middle].abs().max() < 1e-4


def test_items_and_channels_are_independent():
    wave = torch.rand(3, 2, 441) * 2 - 1
    assert torch.equal(resample(wave, 44100)[1:2, :1], resample(wave[1:2, :1], 44100))


def test_the_same_rate_changes_nothing():
    wave = torch.rand(1, 2, 100)
    assert torch.equal(resample(wave, 48000), wave)
