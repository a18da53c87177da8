"""Composed pieces and their sound, checked by estimators that are independent of the composer."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from acestep_core.song.song import Song
from training import analysis
from training.composer import compose
from training.examples import song_of
from training.instruments import INSTRUMENTS, RATE
from training.piece import Constraints, Piece
from training.pool import Pool, make_shard
from training.styles import BASS_LINES, BEATS, COMPING, GROOVES, STEPS, STYLES
from training.synth import PEAK, render

SEEDS = range(5000, 5016)


@pytest.fixture(scope="module")
def renders() -> list[tuple[Piece, np.ndarray]]:
    pieces = [compose(seed, Constraints(seconds=12)) for seed in SEEDS]
    return [(piece, render(piece)) for piece in pieces]


def test_a_seed_determines_piece_and_sound():
    first, second = compose(3, Constraints(seconds=10)), compose(3, Constraints(seconds=10))
    assert first == second
    assert np.array_equal(render(first), render(second))
    assert compose(4, Constraints(seconds=10)).notes != first.notes


def test_render_is_stereo_with_exact_length_and_level(renders):
    for piece, wave in renders:
        assert wave.shape == (2, piece.seconds * RATE) and wave.dtype == np.float32
        assert np.isfinite(wave).all() and np.abs(wave).max() <= PEAK
        assert 0.05 < np.sqrt((wave**2).mean()) < 0.2, piece
        assert np.abs(wave[0] - wave[1]).max() > 0.01, "mono"


def test_renders_have_the_tempo(renders):
    metrical = [analysis.same_tempo(analysis.tempo(wave), piece.bpm)[1] for piece, wave in renders]
    exact = [analysis.same_tempo(analysis.tempo(wave), piece.bpm)[0] for piece, wave in renders]
    assert np.mean(metrical) >= 0.8
    assert np.mean(exact) >= 0.5


def test_renders_have_the_key_or_its_relative(renders):
    right = 0
    for piece, wave in renders:
        key = analysis.key(wave)
        right += key in ((piece.tonic, piece.mode), analysis.relative_key(piece.tonic, piece.mode))
    assert right / len(renders) >= 0.7


def test_constraints_are_met():
    constraints = Constraints(style="house", bpm=124, tonic="A", mode="minor", meter=4, seconds=17, sung=True)
    piece = compose(1, constraints)
    assert (piece.style, piece.bpm, piece.key, piece.meter, piece.seconds) == ("house", 124, "A minor", 4, 17)
    assert "voice" in piece.instruments and piece.language == "en"


def test_a_solo_has_one_instrument_and_no_drums():
    piece = compose(2, Constraints(solo="piano", seconds=10))
    assert set(piece.instruments.values()) == {"piano"}
    assert "drums" not in {note.part for note in piece.notes}
    assert "solo" in piece.caption.lower() or "alone" in piece.caption.lower()


def test_sections_follow_the_lyric_tags():
    sung = [compose(seed, Constraints(sung=True, solo="")) for seed in range(20)]
    for piece in (piece for piece in sung if len(piece.sections) > 1):
        tags = [line[1:-1] for line in piece.lyrics.splitlines() if line.startswith("[")]
        assert tags == [section.tag for section in piece.sections]
        assert [s.bar for s in piece.sections[1:]] == [s.bar + s.bars for s in piece.sections[:-1]]
        bar = 60 / piece.bpm * BEATS[piece.meter]
        for section in (s for s in piece.sections if s.tag == "Bridge"):
            inside = [n for n in piece.notes if section.bar * bar <= n.start < (section.bar + section.bars) * bar - 0.2]
            assert not [n for n in inside if n.part == "drums"]


def test_pieces_vary():
    pieces = [compose(seed) for seed in range(300)]
    assert len({p.style for p in pieces}) == len(STYLES) >= 8
    assert len({name for p in pieces for name in p.instruments.values()}) >= 12
    assert {p.meter for p in pieces} == {3, 4, 6} and {p.mode for p in pieces} == {"major", "minor"}
    assert min(p.bpm for p in pieces) < 70 and max(p.bpm for p in pieces) > 165
    assert all(60 <= p.bpm <= 180 and 10 <= p.seconds <= 30 for p in pieces)
    assert max(Counter(p.caption for p in pieces).values()) <= 2


def test_every_piece_makes_a_valid_song():
    for seed in range(50):
        song = song_of(compose(seed), np.random.default_rng(seed), dropout=0.3)
        assert isinstance(song, Song)


@pytest.mark.parametrize("tables", [GROOVES, COMPING, BASS_LINES])
def test_patterns_fill_their_bar(tables):
    for name, by_meter in tables.items():
        for meter, pattern in by_meter.items():
            for line in pattern.values() if isinstance(pattern, dict) else [pattern]:
                assert len(line) == STEPS[meter] and set(line) <= set("xo."), (name, meter, line)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_instruments_are_in_tune(name):
    for frequency in (110.0, 440.0):
        wave = INSTRUMENTS[name](frequency, 0.8)[: int(0.8 * RATE)]
        assert np.isfinite(wave).all() and 0.05 < np.sqrt((wave**2).mean()) < 3
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 18))
        f = np.fft.rfftfreq(1 << 18, 1 / RATE)
        near = (f > frequency * 0.94) & (f < frequency * 1.06)
        pitch = f[near][np.argmax(spectrum[near])]
        assert abs(1200 * np.log2(pitch / frequency)) < 25, (name, frequency, pitch)


def test_pool_returns_the_rendered_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("training.pool.PIECES_PER_SHARD", 2)
    make_shard(tmp_path, 0, 40, Constraints(seconds=10))
    pool = Pool(tmp_path)
    seed, wave = pool.piece(1)
    assert seed == 41 and np.abs(wave - render(compose(41, Constraints(seconds=10)))).max() < 1e-4
    crops = pool.crops(3, 9600, np.random.default_rng(0))
    assert crops.shape == (3, 2, 9600) and crops.abs().max() > 0.01
