import pytest
import torch

from acestep_core.edit.source import check_latents, cut, extend, source_waveform
from acestep_core.errors import RequestError
from tests.support.tiny import draw

TONE = torch.sin(torch.arange(48000) / 20)[None, None]


def test_source_waveform_converts_to_stereo_at_48_khz():
    assert source_waveform(TONE[..., :44100], 44100).shape == (1, 2, 48000)
    assert source_waveform(TONE.expand(1, 6, -1), 48000).shape == (1, 2, 48000)


@pytest.mark.parametrize(
    "waveform, rate, keyword",
    [
        (torch.zeros(1, 2, 100), 48000, "silent"),
        (torch.full((1, 2, 9), torch.nan), 48000, "NaN"),
        (torch.ones(2, 100), 48000, "channels"),
        (torch.ones(1, 0, 100), 48000, "channels"),
        (torch.ones(1, 2, 0), 48000, "empty"),
        (torch.ones(1, 2, 100), 0, "rate"),
        (torch.ones(1, 1, 601 * 4000), 4000, "601 seconds"),
    ],
)
def test_invalid_source_waveforms(waveform, rate, keyword):
    with pytest.raises(RequestError, match=keyword):
        source_waveform(waveform, rate)


def test_extend_a_waveform():
    sound = TONE.expand(1, 2, -1)
    padded, regions = extend(sound, before=0.51, after=2)
    assert padded.shape == (1, 2, round((0.52 + 1 + 2) * 48000))  # whole frames
    assert torch.equal(padded[..., 13 * 1920 : 13 * 1920 + 48000], sound) and not padded[..., : 13 * 1920].any()
    assert regions == ((0.0, pytest.approx(0.52)), (pytest.approx(1.52), pytest.approx(3.52)))
    assert extend(sound, after=1)[1] == ((1.0, 2.0),)
    assert extend(sound[..., :47000], after=1)[1] == ((47000 / 48000, 2.0),)


def test_extend_latents():
    latents = draw(2, 30, 64)
    padded, regions = extend(latents, before=1, after=0.4)
    assert padded.shape == (2, 65, 64) and torch.equal(padded[:, 25:55], latents)
    assert regions == ((0.0, 1.0), (pytest.approx(2.2), pytest.approx(2.6)))


@pytest.mark.parametrize("seconds", [(-1, 0), (0, float("nan")), (0, float("inf")), ("2", 0), (0, True)])
def test_extend_refuses_invalid_seconds(seconds):
    with pytest.raises(RequestError, match="seconds from 0"):
        extend(draw(1, 30, 64), *seconds)


def test_extend_refuses_too_much_and_nothing():
    with pytest.raises(RequestError, match="602 seconds"):
        extend(draw(1, 50, 64), after=600)
    with pytest.raises(RequestError, match="nothing"):
        extend(draw(1, 50, 64), after=0.001)


@pytest.mark.parametrize("shape", [(2, 100), (1, 2, 0), (100,)])
def test_extend_refuses_other_shapes(shape):
    with pytest.raises(RequestError, match="shape"):
        extend(torch.zeros(shape), after=1.0)


@pytest.mark.parametrize(
    "latents, keyword",
    [
        ("song", "str"),
        (torch.ones(1, 64, 30), r"\[1, 64, 30\]"),
        (torch.ones(1, 0, 64), r"\[1, 0, 64\]"),
        (torch.ones(1, 15001, 64), "600.04 seconds"),
        (torch.full((1, 3, 64), torch.inf), "infinity"),
        (torch.cat([torch.ones(1, 3, 64), torch.zeros(1, 3, 64)]), "empty"),
    ],
)
def test_invalid_source_latents(latents, keyword):
    with pytest.raises(RequestError, match=keyword):
        check_latents(latents)


def test_a_source_is_cut_at_whole_frames():
    latents, sound = draw(1, 50, 64), TONE.expand(1, 2, -1)
    assert cut(latents, 1.01).equal(latents[:, :25]) and cut(latents, None) is latents
    assert cut(sound, 0.5).shape[-1] == 12 * 1920 and cut(sound, 9.0).equal(sound)
    with pytest.raises(RequestError, match="end"):
        cut(latents, 0.01)
