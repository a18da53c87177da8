"""A song as a picture: where its parts lie, and files that other programs read."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from acestep_core.audio.picture import KINDS, draw_song, write_png
from acestep_core.errors import RequestError

RATE = 8000


def tone(seconds=4.0, frequency=1000.0, level=0.5):
    return level * torch.sin(torch.arange(round(seconds * RATE)) * 2 * math.pi * frequency / RATE)


def late_tone():
    """Return two channels: three seconds of silence, then one of a tone."""
    wave = tone()
    wave[: 3 * RATE] = 0
    return torch.stack([wave, wave / 2])


def brightness(picture):
    return picture.sum(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_has_its_size_and_no_margin(kind):
    picture = draw_song(late_tone(), RATE, kind, width=200, height=64)
    assert picture.shape == (64, 200, 3) and picture.dtype == torch.float32
    assert 0 <= picture.min() and picture.max() <= 1
    columns = brightness(picture).mean(0)
    assert columns[:145].max() < columns[155:].min(), "the tone is the last quarter"


def test_the_height_of_a_waveform_is_its_level():
    rows = brightness(draw_song(late_tone(), RATE, width=80, height=100))[:, 70]
    drawn = (rows > rows.min() + 0.05).nonzero().flatten()
    assert abs(int(drawn.min()) - 25) <= 1 and abs(int(drawn.max()) - 74) <= 1
    silent = brightness(draw_song(torch.zeros(1, RATE), RATE, width=80, height=100))
    assert (silent.argmax(0) - 50).abs().max() <= 1, "silence is a line in the middle"


def test_a_spectrogram_has_high_frequencies_at_the_top():
    places = []
    for frequency in (200, 1000, 3000):
        picture = brightness(draw_song(tone(frequency=frequency)[None], RATE, "spectrogram", width=50, height=96))
        places.append(int(picture[:, 25].argmax()))
        mel = [math.log1p(f / 700) for f in (40, frequency, RATE / 2)]
        assert abs(places[-1] - 96 * (1 - (mel[1] - mel[0]) / (mel[2] - mel[0]))) <= 2
    assert places == sorted(places, reverse=True)


def test_long_songs_and_single_samples():
    song = late_tone().repeat(1, 20)
    whole = brightness(draw_song(song, RATE, "spectrogram", width=16, height=32)).mean(0)
    assert whole.std() < 0.2 * whole.mean(), "a column averages all of its time"
    for kind in KINDS:
        assert draw_song(torch.ones(1, 1), RATE, kind, 32, 16).isfinite().all()


@pytest.mark.parametrize(
    ("options", "word"),
    [({"kind": "photo"}, "kind"), ({"width": 8}, "width"), ({"height": 9000}, "height"), ({"width": 20.5}, "width")],
)
def test_wrong_options_are_named(options, word):
    with pytest.raises(RequestError, match=word):
        draw_song(late_tone(), RATE, **options)


@pytest.mark.parametrize("waveform", [torch.zeros(2, 0), torch.zeros(5), torch.full((1, 9), float("nan"))])
def test_audio_that_is_none_is_refused(waveform):
    with pytest.raises(RequestError, match="waveform"):
        draw_song(waveform, RATE)


def test_other_programs_read_the_file(tmp_path):
    picture = draw_song(late_tone(), RATE, width=70, height=33)
    write_png(tmp_path / "song.png", picture)
    read = Image.open(tmp_path / "song.png")
    read.load()
    assert read.size == (70, 33) and read.mode == "RGB"
    pixels = torch.from_numpy(np.array(read)) / 255
    assert (pixels - picture).abs().max() <= 0.5 / 255 + 1e-6
