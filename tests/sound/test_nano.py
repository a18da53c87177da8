"""Nano's songs have the requested tempo, key, instruments and length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acestep_core import Metadata, Song, decode, generate
from acestep_core.pipeline import tokenize
from acestep_core.planner.load_planner import load_planner
from training import analysis
from training.classifier import train_classifier
from training.composer import compose
from training.examples import song_of
from training.losses import mel_distance, si_sdr
from training.piece import Constraints, Piece
from training.planner import PlannerRecipe, code_example
from training.pool import HELD_OUT

from . import metrics


def test_autoencoder_reconstructs_held_out_pieces(nano, sources):
    for _, wave, latents in sources:
        decoded = decode(nano, latents, normalize=False)[0]
        assert mel_distance(decoded, torch.from_numpy(wave)) < 2.2
        assert si_sdr(decoded, torch.from_numpy(wave)) > 3


@pytest.fixture(scope="module")
def songs(nano) -> list[tuple[Piece, np.ndarray]]:
    """Held-out requests and nano's songs."""
    requests = [compose(HELD_OUT + 1000 + i, Constraints(seconds=15, meter=4)) for i in range(12)]
    return [(piece, generate(nano, song_of(piece), seed=piece.seed).waveform[0].numpy()) for piece in requests]


def test_songs_have_the_requested_tempo_and_key(songs):
    """Chance is one of ten for the tempo and one of twenty-four for the key."""
    tempi = [analysis.same_tempo(analysis.tempo(wave), piece.bpm)[0] for piece, wave in songs]
    keys = [analysis.key(wave) == (piece.tonic, piece.mode) for piece, wave in songs]
    assert np.mean(tempi) >= 0.5, tempi
    assert np.mean(keys) >= 0.3, keys


def test_songs_have_the_requested_instruments(songs):
    """More than the instruments of the other requests. Drums match in most songs."""
    classifier = train_classifier(pieces=150, seconds=10, epochs=120)
    requested = [set(piece.instruments.values()) for piece, _ in songs]
    present = [classifier.classify(wave)[1] for _, wave in songs]
    found = np.array([[len(names & request) / len(request) for request in requested] for names in present])
    own = np.diag(found).mean()
    others = (found.sum() - np.trace(found)) / (found.size - len(found))
    assert own > others + 0.1, (own, others)
    drums = [("drums" in names) == ("drums" in request) for names, request in zip(present, requested, strict=True)]
    assert np.mean(drums) >= 0.75, drums


def test_a_solo_has_fewer_drum_strokes_than_a_band(nano):
    """Renders have 0.06 and 0.17. A model that ignores the caption has the same in both."""

    def strength(caption: str) -> float:
        song = Song(caption, metadata=Metadata(bpm=110, duration=12))
        waves = generate(nano, song, batch=3, seed=3).waveform.numpy()
        return float(np.mean([_strokes(wave) for wave in waves]))

    band = strength("Energetic rock with electric guitar and drum kit")
    assert 2 * strength("solo piano, calm, no drums") < band and band > 0.12


@pytest.mark.parametrize("seconds", [10, 20])
def test_songs_have_the_requested_length_and_no_silence(nano, seconds):
    song = Song("warm lo-fi piano over a slow drum loop", metadata=Metadata(duration=seconds))
    wave = generate(nano, song, seed=7).waveform[0].numpy()
    assert wave.shape == (2, seconds * metrics.RATE)
    assert min(metrics.level(second) for second in np.split(wave, seconds, axis=1)) > -40


def _strokes(wave: np.ndarray) -> float:
    """Return the mean rise of the log level above 6 kHz, which cymbals and snares have and steady noise has not."""
    spectrum = analysis.spectrogram(wave) ** 2
    first = int(6000 / metrics.RATE * 2048)
    return float(np.maximum(np.diff(np.log(spectrum[:, first:].sum(1) + 1e-3)), 0).mean())


def test_planner_predicts_the_codes_of_held_out_pieces(nano, sources):
    """Chance is 7.8 nats a code. A planner that has memorised its training pieces has 7.4."""
    planner = load_planner("nano", device="cpu", dtype="float32")
    vocabulary, nats = planner.vocabulary, []
    for piece, _, latents in sources:
        codes = tokenize(nano, latents)[0]
        recipe = PlannerRecipe(understand=0, unconditional=0)
        prompt, answer = code_example(vocabulary, piece, list(codes), recipe, np.random.default_rng(0))
        ids = torch.tensor([prompt + answer])
        with torch.inference_mode():
            cache = planner.network.cache(1, ids.shape[1], torch.device("cpu"))
            states = planner.network(ids, torch.tensor([0]), cache, ids.shape[1])[0]
            head = planner.network.head(slice(None), torch.device("cpu"))
            expected = planner.network.logits(states[-len(codes) - 2 : -2], head)
            log_probs = expected[:, vocabulary.audio_base : vocabulary.audio_base + vocabulary.codes].log_softmax(-1)
        nats.append(float(-log_probs.gather(1, torch.tensor(codes)[:, None]).mean()))
    assert np.mean(nats) < 6.3, nats
