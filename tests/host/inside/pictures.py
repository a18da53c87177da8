"""Song Picture: an image for each song, and every input changes it."""

from __future__ import annotations

import torch
from pack_under_test.nodes.picture import SongPictureNode

from .odd_inputs import refusal
from .saving import recording
from .world import World, difference


def picture(audio: dict | None = None, kind: str = "waveform", width: int = 64, height: int = 32) -> torch.Tensor:
    return SongPictureNode.execute(audio or recording(), kind, width, height).args[0]


def check_each_song_is_an_image(world: World) -> None:
    images = picture(recording(batch=2))
    assert images.shape == (2, 32, 64, 3) and images.dtype == torch.float32
    assert 0 <= images.min() and images.max() <= 1
    assert picture(width=128, height=48).shape == (1, 48, 128, 3)
    assert difference(picture(), picture(kind="spectrogram")) > 0.1
    quiet = {**recording(), "waveform": recording()["waveform"] / 4}
    assert difference(picture(), picture(quiet)) > 0.1


def check_audio_that_is_none_is_refused(world: World) -> None:
    assert refusal(lambda: picture({"waveform": torch.zeros(1, 1, 0), "sample_rate": 48000})).startswith("audio")
