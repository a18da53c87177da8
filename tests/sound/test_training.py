"""A training on a folder of songs moves other prompts towards the sound of the folder."""

from __future__ import annotations

import json

import numpy as np
import torch

from acestep_core import Metadata, Song, TrainSettings, generate, label_songs, load_model, train_adapter, write_audio
from tests.sound.test_adapters import SECONDS, mean_profile, profile
from training.adapter import FIRST_SEED, OTHER_SEED, TRAITS
from training.composer import compose
from training.examples import song_of
from training.piece import Constraints
from training.synth import render

SONGS = 12
SETTINGS = TrainSettings(rank=4, steps=50, crop=0, accumulation=3, learning_rate=8e-3)


def test_a_folder_of_bells_gives_an_adapter_of_bells(tmp_path):
    """The captions are those of pieces without bells, so that they cannot explain the sound."""
    folder = tmp_path / "bells"
    folder.mkdir()
    for number in range(SONGS):
        piece = compose(FIRST_SEED + number, Constraints(seconds=10, **TRAITS["bells"]))
        same = Constraints(seconds=10, bpm=piece.bpm, tonic=piece.tonic, mode=piece.mode, meter=piece.meter)
        write_audio(folder / f"{number}.flac", torch.from_numpy(render(piece)))
        metadata = song_of(piece).metadata
        values = {"bpm": metadata.bpm, "key": metadata.key, "time_signature": metadata.time_signature}
        caption = song_of(compose(OTHER_SEED + number, same)).caption
        (folder / f"{number}.json").write_text(json.dumps({**values, "caption": caption}))
    result = train_adapter(folder, tmp_path / "bells.safetensors", settings=SETTINGS, device="cpu", dtype="float32")

    usual, trained = mean_profile(OTHER_SEED), mean_profile(FIRST_SEED, **TRAITS["bells"])
    direction = (trained - usual) / np.sum((trained - usual) ** 2)  # 0: usual pieces, 1: pieces with bells
    songs = [song_of(compose(6_000_000 + i, Constraints(seconds=SECONDS))) for i in range(2)]

    def shares(adapters: list) -> list[float]:
        model = load_model("nano", device="cpu", dtype="float32", adapters=adapters)
        waves = [wave for song in songs for wave in generate(model, song, seed=0, batch=3).waveform]
        return [float((profile(wave.numpy()) - usual) @ direction) for wave in waves]

    plain, adapted = shares([]), shares([result.path])
    assert np.mean(adapted) > np.mean(plain) + 0.5, (plain, adapted)
    assert np.mean(adapted) > max(plain) + 0.2, (plain, adapted)  # no seed alone sounds like it


def test_recordings_without_texts_become_an_adapter(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(2):
        piece = compose(FIRST_SEED + number, Constraints(seconds=10, **TRAITS["bells"]))
        write_audio(folder / f"{number}.flac", torch.from_numpy(render(piece)))
    label_songs(folder, planner="nano", model="nano", device="cpu")
    labels = [json.loads((folder / f"{number}.json").read_text()) for number in range(2)]
    assert all(label["caption"] and label["bpm"] and label["key"] for label in labels)
    settings = TrainSettings(rank=4, steps=3, crop=6, learning_rate=8e-3)
    result = train_adapter(folder, tmp_path / "own.safetensors", settings=settings, device="cpu", dtype="float32")
    song = Song(labels[0]["caption"], metadata=Metadata(duration=3))
    plain, adapted = (
        generate(load_model("nano", device="cpu", dtype="float32", adapters=adapters), song, seed=1).waveform
        for adapters in ([], [result.path])
    )
    assert not torch.allclose(plain, adapted, atol=1e-3)
