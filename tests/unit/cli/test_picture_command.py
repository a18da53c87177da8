"""`acestep picture`: a PNG file beside the song, or a sentence."""

from __future__ import annotations

import soundfile
from PIL import Image

from tests.support.sounds import RATE, music


def test_a_song_is_drawn_beside_it_or_elsewhere(acestep, tmp_path):
    soundfile.write(tmp_path / "song.wav", music(2).T.numpy(), RATE)
    assert acestep("picture", "song.wav", model=False)[:2] == (0, "song.png\n")
    assert Image.open(tmp_path / "song.png").size == (1024, 256)
    options = ("--kind", "spectrogram", "--width", 64, "--height", 32, "-o", "other.png")
    assert acestep("picture", "song.wav", *options, model=False)[:2] == (0, "other.png\n")
    assert Image.open(tmp_path / "other.png").size == (64, 32)


def test_wrong_requests_are_one_sentence(acestep, tmp_path):
    soundfile.write(tmp_path / "song.wav", music(1).T.numpy(), RATE)
    for arguments, word in (
        (["missing.wav"], "missing.wav"),
        (["song.wav", "--kind", "photo"], "kind"),
        (["song.wav", "--width", 3], "width"),
        (["song.wav", "-o", "song.jpg"], "output: must end in .png, got 'song.jpg'"),
        (["song.wav", "-o", "no_folder/song.png"], "no_folder"),
    ):
        code, out, err = acestep("picture", *arguments, model=False)
        assert (code, out) == (2, "") and word in err and err.count("\n") == 1
