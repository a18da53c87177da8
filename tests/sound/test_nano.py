"""That nano makes music: what was asked for is heard."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acestep_core import Metadata, Song, decode, generate
from acestep_core.pipeline import tokenize
from acestep_core.planner.load_planner import load_planner
from acestep_core.planner.network import logits
from training import listen
from training.composer import Piece, Wish, compose
from training.examples import song_of
from training.listener import train_listener
from training.losses import mel_distance, si_sdr
from training.planner import Recipe, code_example
from training.pool import HELD_OUT

from . import ears


def test_the_autoencoder_gives_back_what_it_is_given(nano, sources):
    for _, wave, latents in sources:
        made = decode(nano, latents, normalize=False)[0]
        assert mel_distance(made, torch.from_numpy(wave)) < 2.2
        assert si_sdr(made, torch.from_numpy(wave)) > 3


@pytest.fixture(scope="module")
def songs(nano) -> list[tuple[Piece, np.ndarray]]:
    """Requests that nano never heard, and what it made of them."""
    asked = [compose(HELD_OUT + 1000 + i, Wish(seconds=15, meter=4)) for i in range(12)]
    return [(piece, generate(nano, song_of(piece), seed=piece.seed).waveform[0].numpy()) for piece in asked]


def test_the_tempo_and_the_key_that_were_asked_for_are_heard(songs):
    """In most songs, and in many; by chance it would be in one of ten, and in one of twenty-four."""
    tempi = [listen.same_tempo(listen.tempo(wave), piece.bpm)[0] for piece, wave in songs]
    keys = [listen.key(wave) == (piece.tonic, piece.mode) for piece, wave in songs]
    assert np.mean(tempi) >= 0.5, tempi
    assert np.mean(keys) >= 0.3, keys


def test_the_instruments_that_were_asked_for_are_heard(songs):
    """More of them than of those that were asked for in the other songs; and drums where they belong."""
    listener = train_listener(pieces=150, seconds=10, epochs=120)
    asked = [set(piece.instruments.values()) for piece, _ in songs]
    heard = [listener.hear(wave)[1] for _, wave in songs]
    found = np.array([[len(there & wanted) / len(wanted) for wanted in asked] for there in heard])
    own = np.diag(found).mean()
    others = (found.sum() - np.trace(found)) / (found.size - len(found))
    assert own > others + 0.1, (own, others)
    drums = [("drums" in there) == ("drums" in wanted) for there, wanted in zip(heard, asked, strict=True)]
    assert np.mean(drums) >= 0.75, drums


def test_a_solo_has_less_of_a_beat_than_a_band(nano):
    """Renders: 0.06 and 0.17; a model that is deaf to the words has as much in both."""

    def strength(caption: str) -> float:
        song = Song(caption, metadata=Metadata(bpm=110, duration=12))
        made = generate(nano, song, batch=3, seed=3).waveform.numpy()
        return float(np.mean([_strokes(wave) for wave in made]))

    band = strength("Energetic rock with electric guitar and drum kit")
    assert 2 * strength("solo piano, calm, no drums") < band and band > 0.12


@pytest.mark.parametrize("seconds", [10, 20])
def test_it_lasts_as_long_as_asked_and_is_never_silent(nano, seconds):
    song = Song("warm lo-fi piano over a slow drum loop", metadata=Metadata(duration=seconds))
    wave = generate(nano, song, seed=7).waveform[0].numpy()
    assert wave.shape == (2, seconds * ears.RATE)
    assert listen.quiet_share(wave) < 0.3 and ears.level(wave) > -40


def _strokes(wave: np.ndarray) -> float:
    """How much the level above 6 kHz, where cymbals and snares live, rises from one hundredth of a second to the next;
    steady hiss has none of it. Mean of the natural logarithms."""
    spectrum = listen.spectrogram(wave) ** 2
    first = int(6000 / ears.RATE * 2048)
    return float(np.maximum(np.diff(np.log(spectrum[:, first:].sum(1) + 1e-3)), 0).mean())


def test_the_planner_expects_the_codes_of_pieces_that_it_never_heard(nano, sources):
    """By chance 7.8 nats a code; a planner that knows its own pieces by heart, and nothing else, has 7.4."""
    planner = load_planner("nano", device="cpu", dtype="float32")
    words, nats = planner.vocabulary, []
    for piece, _, latents in sources:
        codes = tokenize(nano, latents)[0]
        recipe = Recipe(understand=0, unconditional=0)
        prompt, answer = code_example(words, piece, list(codes), recipe, np.random.default_rng(0))
        ids = torch.tensor([prompt + answer])
        with torch.inference_mode():
            cache = planner.network.cache(1, ids.shape[1], torch.device("cpu"))
            states = planner.network(ids, torch.tensor([0]), cache, ids.shape[1])[0]
            expected = logits(states[-len(codes) - 2 : -2], planner.network.head(slice(None), torch.device("cpu")))
            told = expected[:, words.audio_base : words.audio_base + words.codes].log_softmax(-1)
        nats.append(float(-told.gather(1, torch.tensor(codes)[:, None]).mean()))
    assert np.mean(nats) < 6.3, nats
