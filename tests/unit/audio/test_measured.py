"""Tempo and key of synthetic sounds and composed pieces, and their comparison with metadata."""

from __future__ import annotations

import math

import pytest
import torch

from acestep_core.audio.measured import (
    TOLERANCE,
    MeasuredMusic,
    MusicFilter,
    measure_music,
    same_key,
    same_tempo,
)
from acestep_core.errors import RequestError
from acestep_core.song.song import Metadata, Song
from training.composer import compose
from training.piece import Constraints
from training.synth import render

RATE = 16_000


def matches(song: Song | Metadata, measured: MeasuredMusic, tolerance: float | None = TOLERANCE) -> bool:
    return not MusicFilter(tolerance, "exact").mismatches(song, measured)


def clicks(bpm: float, seconds: float = 16, rate: int = RATE) -> torch.Tensor:
    """Return short noises, each fourth louder, `[1, samples]`."""
    wave = torch.zeros(round(seconds * rate))
    burst = torch.randn(rate // 50, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 0, rate // 50)
    for beat in range(int(seconds * bpm / 60)):
        start = round(beat * 60 / bpm * rate)
        part = wave[start : start + len(burst)]
        part += burst[: len(part)] * (1.0 if beat % 4 == 0 else 0.6)
    return wave[None]


def chords(*chords: tuple[int, ...], seconds: float = 1.0, rate: int = RATE, tuning: float = 440.0) -> torch.Tensor:
    """Return chords of MIDI numbers with three overtones each, `[1, samples]`."""
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    decay = torch.exp(-2 * time)
    parts = []
    for chord in chords:
        notes = [tuning * 2 ** ((pitch - 69) / 12) for pitch in chord]
        tones = [torch.sin(2 * math.pi * f * n * time) / n**2 for f in notes for n in (1, 2, 3)]
        parts.append(torch.stack(tones).sum(0) * decay)
    return torch.cat(parts)[None].float()


def cadence(tonic: int, minor: bool) -> list[tuple[int, ...]]:
    third, sixth = (3, 8) if minor else (4, 9)
    one = (tonic - 12, tonic, tonic + third, tonic + 7)
    four = (tonic + 5, tonic + sixth, tonic + 12)
    five = (tonic - 5, tonic + 7, tonic + (10 if minor else 11), tonic + 14)
    return [one, four, five, one] * 2


@pytest.mark.parametrize("bpm", [72, 90, 107, 128, 150])
def test_clicks_have_their_tempo(bpm):
    measured = measure_music(clicks(bpm), RATE)
    assert measured.bpm == pytest.approx(bpm, rel=0.01)
    assert measured.bpm_confidence > 0.3


@pytest.mark.parametrize(("rate", "level"), [(48_000, 1.0), (44_100, 1e-3), (8_000, 0.1)])
def test_tempo_and_key_depend_on_neither_rate_nor_level(rate, level):
    assert measure_music(clicks(100, rate=rate) * level, rate).bpm == pytest.approx(100, rel=0.01)
    assert measure_music(chords(*cadence(62, True), rate=rate) * level, rate).key == "D minor"


@pytest.mark.parametrize(
    ("tonic", "minor", "key"),
    [
        (60, False, "C major"),
        (66, False, "F# major"),
        (57, True, "A minor"),
        (61, True, "C# minor"),
        (58, False, "Bb major"),
    ],
)
def test_cadences_have_their_key(tonic, minor, key):
    measured = measure_music(chords(*cadence(tonic, minor)), RATE)
    assert measured.key == key
    assert measured.key_confidence > 0.3


def test_the_tuning_of_a_recording_does_not_change_its_key():
    quarter_tone_less = 440 * 2 ** (-0.4 / 12)
    assert measure_music(chords(*cadence(60, False), tuning=quarter_tone_less), RATE).key == "C major"


@pytest.mark.parametrize(
    "wave",
    [
        torch.zeros(2, 10 * RATE),
        torch.randn(2, 10 * RATE, generator=torch.Generator().manual_seed(1)) * 0.1,
        torch.zeros(1, 1),
        clicks(120, seconds=1),
    ],
    ids=["silence", "noise", "one sample", "one second"],
)
def test_sound_without_tempo_and_key_has_none(wave):
    measured = measure_music(wave, RATE)
    assert (measured.bpm, measured.key) == (None, None)
    assert str(measured) == "no tempo, no key"


def test_a_steady_chord_has_a_key_and_no_tempo():
    time = torch.arange(12 * RATE, dtype=torch.float64) / RATE
    wave = sum(torch.sin(2 * math.pi * f * time) for f in (261.6, 329.6, 392.0))
    measured = measure_music(wave[None].float(), RATE)
    assert (measured.bpm, measured.key) == (None, "C major")


def test_composed_pieces_have_their_tempo_and_key():
    pieces = [compose(seed, Constraints(seconds=12)) for seed in range(7000, 7010)]
    tempos, keys = [], []
    for piece in pieces:
        measured = measure_music(torch.from_numpy(render(piece)), 48_000)
        tempos.append(same_tempo(60 / piece.beat_seconds, measured.bpm))
        keys.append(same_key(piece.key, measured.key, relative=True))
    assert sum(tempos) >= 8, tempos
    assert sum(keys) >= 8, keys


@pytest.mark.parametrize(
    "wave",
    [torch.zeros(5), torch.zeros(2, 0), torch.full((1, 99), math.nan), "wave"],
    ids=["1-d", "empty", "NaN", "text"],
)
def test_a_wrong_waveform_is_refused(wave):
    with pytest.raises(RequestError, match="waveform"):
        measure_music(wave, RATE)


MEASURED = MeasuredMusic(bpm=121.0, bpm_confidence=0.9, key="C# minor", key_confidence=0.1)


def test_matching_compares_what_the_song_has():
    assert matches(Song("x"), MEASURED)
    assert matches(Song("x", metadata=Metadata(bpm=120, key="Db minor")), MEASURED)
    assert matches(Metadata(bpm=60), MEASURED), "half of the tempo"
    assert not matches(Metadata(bpm=110), MEASURED)
    assert not matches(Metadata(bpm=120), MEASURED, tolerance=0.005)
    assert not matches(Metadata(key="E major"), MEASURED)
    assert matches(Metadata(bpm=90, key="C# minor"), MEASURED, tolerance=None)
    assert not matches(Metadata(bpm=120), MeasuredMusic(None, 0, None, 0))


def test_rules_are_read_and_give_reasons():
    assert MusicFilter.parse(["bpm:±4%", "key"]) == MusicFilter(0.04, "exact")
    assert MusicFilter.parse(["BPM:2.5", "key:relative"]) == MusicFilter(0.025, "relative")
    assert MusicFilter.parse(["bpm"]) == MusicFilter(0.04)
    assert MusicFilter.parse(["bpm:+-4%"]) == MusicFilter(0.04)
    relative = MusicFilter.parse(["key:relative"])
    assert not relative.mismatches(Metadata(bpm=90, key="E major"), MEASURED)
    reasons = MusicFilter(0.04, "exact").mismatches(Metadata(bpm=90, key="E major"), MEASURED)
    assert len(reasons) == 2 and "121" in reasons[0] and "C# minor" in reasons[1]


@pytest.mark.parametrize("rule", ["tempo", "bpm:", "bpm:0%", "bpm:±80%", "key:any", "", "bpm:four"])
def test_a_wrong_rule_is_refused(rule):
    with pytest.raises(RequestError, match="keep"):
        MusicFilter.parse([rule])


def test_relative_keys_belong_together():
    assert same_key("C major", "A minor", relative=True) and same_key("F# minor", "A major", relative=True)
    assert same_key("Cb major", "B major") and not same_key("C major", "A minor")
    assert same_key("Eb major", "C minor", relative=True) and not same_key("C major", "C minor", relative=True)


def test_the_text_marks_what_is_unsure():
    assert str(MEASURED) == "121 BPM, C# minor (unsure)"
    assert MEASURED.to_dict() == {"bpm": 121.0, "bpm_confidence": 0.9, "key": "C# minor", "key_confidence": 0.1}
