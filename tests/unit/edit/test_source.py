import pytest
import torch

from acestep_core.edit.source import check_latents, check_mask, extend, frame_of, source_waveform, spans
from acestep_core.errors import RequestError
from tests.support.tiny import draw

TONE = torch.sin(torch.arange(48000) / 20)[None, None]


def test_a_recording_of_any_rate_and_channels_becomes_stereo_at_48_khz():
    assert source_waveform(TONE[..., :44100], 44100).shape == (1, 2, 48000)
    assert source_waveform(TONE.expand(1, 6, -1), 48000).shape == (1, 2, 48000)


@pytest.mark.parametrize(
    "waveform, rate, message",
    [
        (torch.zeros(1, 2, 100), 48000, "the audio is silent"),
        (torch.full((1, 2, 9), torch.nan), 48000, "NaN"),
        (torch.ones(2, 100), 48000, r"audio must be \[batch, channels, samples\]"),
        (torch.ones(1, 0, 100), 48000, "audio must be"),
        (torch.ones(1, 2, 0), 48000, "the audio is empty"),
        (torch.ones(1, 2, 100), 0, "the sample rate must be a positive number of Hz, got 0"),
        (torch.ones(1, 1, 601), 1, "the source is 601 seconds long, the model makes at most 600: cut it first"),
    ],
)
def test_what_is_no_source(waveform, rate, message):
    with pytest.raises(RequestError, match=message):
        source_waveform(waveform, rate)


def test_room_around_a_waveform():
    sound = TONE.expand(1, 2, -1)
    padded, regions = extend(sound, before=0.51, after=2)
    assert padded.shape == (1, 2, round((0.52 + 1 + 2) * 48000))  # whole frames: the source stays on its grid
    assert torch.equal(padded[..., 13 * 1920 : 13 * 1920 + 48000], sound) and not padded[..., : 13 * 1920].any()
    assert regions == ((0.0, pytest.approx(0.52)), (pytest.approx(1.52), pytest.approx(3.52)))
    assert extend(sound, after=1)[1] == ((1.0, 2.0),)
    assert extend(sound[..., :47000], after=1)[1] == ((47000 / 48000, 2.0),)


def test_room_around_latents():
    latents = draw(2, 30, 64)
    padded, regions = extend(latents, before=1, after=0.4)
    assert padded.shape == (2, 65, 64) and torch.equal(padded[:, 25:55], latents)
    assert regions == ((0.0, 1.0), (pytest.approx(2.2), pytest.approx(2.6)))


@pytest.mark.parametrize("room", [(-1, 0), (0, float("nan")), (0, float("inf")), ("2", 0), (0, True)])
def test_impossible_room(room):
    with pytest.raises(RequestError, match="is a number of seconds from 0 on"):
        extend(draw(1, 30, 64), *room)


def test_too_much_room_or_none():
    with pytest.raises(RequestError, match="extended, the song is 602 seconds long, the model makes at most 600"):
        extend(draw(1, 50, 64), after=600)
    with pytest.raises(RequestError, match="nothing to extend"):
        extend(draw(1, 50, 64), after=0.001)


@pytest.mark.parametrize(
    "latents, message",
    [
        ("song", r"must be latents \[batch, frames, 64\], got str"),
        (torch.ones(1, 64, 30), r"got \[1, 64, 30\]"),
        (torch.ones(1, 0, 64), r"got \[1, 0, 64\]"),
        (torch.ones(1, 15001, 64), "the source is 600.04 seconds long, the model makes at most 600"),
        (torch.full((1, 3, 64), torch.inf), "contain NaN or infinity"),
        (torch.cat([torch.ones(1, 3, 64), torch.zeros(1, 3, 64)]), "empty, all zero"),
    ],
)
def test_latents_that_are_no_source(latents, message):
    with pytest.raises(RequestError, match=message):
        check_latents(latents)


@pytest.mark.parametrize(
    "mask, message",
    [
        (torch.ones(29), "the mask is 29 frames long, the source 30"),
        (torch.ones(1, 1, 30), r"a mask is a tensor \[frames\] or \[batch, frames\], got \[1, 1, 30\]"),
        (torch.zeros(30), "the mask is empty"),
        (torch.cat([torch.ones(1, 30), torch.zeros(1, 30)]), "the mask is empty"),
        (torch.full((30,), 255.0), "values from 0"),
        (torch.full((30,), torch.nan), "values from 0"),
        ([1.0] * 30, "got list"),
    ],
)
def test_masks_that_are_none(mask, message):
    with pytest.raises(RequestError, match=message):
        check_mask(mask, 30)


def test_soft_masks_are_cut_in_the_middle():
    assert check_mask(torch.tensor([0, 0.49, 0.5, 1.0]), 4).tolist() == [[False, False, True, True]]


def test_frames_and_spans():
    assert [frame_of(seconds) for seconds in (0, 0.0399, 0.04, 1.16, 10.01)] == [0, 0, 1, 29, 250]
    assert spans(torch.tensor([True, False, True, True])) == [(0, 1), (2, 4)]
    assert spans(torch.tensor([False, False])) == []


@pytest.mark.parametrize("shape", [(2, 100), (1, 2, 0), (100,)])
def test_what_is_no_source_cannot_be_extended(shape):
    with pytest.raises(RequestError, match="a source to extend is a waveform .* got a tensor of shape"):
        extend(torch.zeros(shape), after=1.0)
