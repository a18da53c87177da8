import pytest
import torch

from acestep_core.audio import (
    anti_clip,
    check_waveform,
    dropped_channels,
    is_finite,
    normalize_peak,
    to_stereo,
)
from acestep_core.audio.level import extremes
from acestep_core.errors import RequestError


def test_mono_is_doubled_and_extra_channels_are_dropped():
    mono = torch.rand(2, 1, 10)
    assert torch.equal(to_stereo(mono), torch.cat([mono, mono], dim=1))
    surround = torch.rand(1, 6, 10)
    assert torch.equal(to_stereo(surround), surround[:, :2])
    assert dropped_channels(mono) == dropped_channels(surround[:, :2]) == []
    (warning,) = dropped_channels(surround)
    assert "first 2 of 6 channels" in warning


def test_anti_clip_scales_only_the_items_that_clip():
    loud, quiet = torch.tensor([[[0.5, -2.0]]]), torch.tensor([[[0.25, -0.5]]])
    result = anti_clip(torch.cat([loud, quiet]))
    assert torch.equal(result, torch.cat([loud / 2, quiet]))


def test_normalize_peak_scales_each_item_to_minus_one_decibel():
    waveform = torch.tensor([[[0.5, -2.0]], [[0.01, 0.002]], [[0.0, 0.0]]])
    peaks = normalize_peak(waveform).abs().amax(dim=(1, 2))
    assert peaks.tolist() == pytest.approx([0.8912509, 0.8912509, 0.0])


SOUND = torch.linspace(-1, 1, 100).reshape(1, 1, 100)


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (SOUND[0], 48000, r"shape \[1, 100\]"),
        (SOUND[:, :0], 48000, r"shape \[1, 0, 100\]"),
        (SOUND[..., :0], 48000, "empty"),
        (SOUND[:0], 48000, "empty"),
        (SOUND * float("nan"), 48000, "NaN"),
        (SOUND * float("inf"), 48000, "infinite"),
        (SOUND, 0, "rate .* got 0"),
        (SOUND, 1, "rate .* 4000 .* got 1"),
        (SOUND, 10**400, "rate .* 384000 Hz"),
        (SOUND, float("nan"), "rate .* got nan"),
        (SOUND, None, "rate .* got None"),
        (torch.zeros(1, 2, 100), 48000, "silent"),
        (torch.cat([torch.zeros(1, 2, 100), SOUND], 1), 48000, "silent.*first 2 of 3 channels"),
        (torch.cat([SOUND, SOUND * 1e-6]), 48000, "item 1 .*silent"),
    ],
)
def test_invalid_audio_is_refused(waveform, rate, message):
    with pytest.raises(RequestError, match=message):
        check_waveform(waveform, rate)


@pytest.mark.parametrize("level", [normalize_peak, anti_clip])
def test_scaling_in_place_gives_the_same_result(level):
    waveform = torch.randn(2, 2, 500, generator=torch.Generator().manual_seed(3))
    out = waveform.clone()
    assert level(out, out=out) is out
    assert torch.equal(out, level(waveform))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_non_finite_value_is_found(bad):
    values = torch.zeros(2, 3, 100)
    assert is_finite(values)
    values[1, 2, 40] = bad
    assert not is_finite(values)


def test_extremes_of_each_part():
    waveform = torch.zeros(2, 1000)
    waveform[0, 10], waveform[1, 999] = 0.5, -1
    low, high = extremes(waveform, 10)
    assert high == [0.5] + [0.0] * 9 and low == [0.0] * 9 + [-1.0]
    low, high = extremes(torch.tensor([[0.25, -0.5]]), 50)
    assert low == high == [0.25, -0.5]
