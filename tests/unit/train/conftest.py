"""A tiny model and a folder of three songs."""

import json

import pytest

from acestep_core import write_audio
from tests.support import tiny_checkpoint, tiny_text
from tests.support.sounds import music

tiny_tokenizer_dir = tiny_text.tiny_tokenizer_dir


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory, tiny_tokenizer_dir):
    root = tmp_path_factory.mktemp("models")
    tiny_checkpoint.write_tiny_checkpoint(root, tiny_tokenizer_dir)
    return root


@pytest.fixture
def band(tmp_path):
    folder = tmp_path / "band"
    folder.mkdir()
    for number in range(3):
        write_audio(folder / f"{number}.wav", music(5.2 + number, seed=number))
        values = {"caption": f"song {number}", "lyrics": "[Verse]\nla la\n\n[Chorus]\nlo\n\nlast", "bpm": 100 + number}
        (folder / f"{number}.json").write_text(json.dumps(values))
    return folder
