"""Spectrogram, loudness and beats on the page, without a page, against numpy and the core."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import torch

from acestep_core.audio.loudness import OFFSET, SHORT_TERM_HOPS, decibels, weighted_powers, windowed
from tests.support import javascript

RATE = 8000
analysis = partial(javascript.evaluate, "analysis.js")
beats = partial(javascript.evaluate, "beats.js")
# Two seconds of quiet, then a louder tone: the same samples as in `sound`.
SOUND = f"""Array.from({{ length: 8 * {RATE} }}, (_, i) => Math.fround(
    (i < 3 * {RATE} ? 0.05 : 0.5) * Math.sin(2 * Math.PI * 440 * i / {RATE}) + 0.02 * Math.sin(i * i)))"""


def sound() -> np.ndarray:
    i = np.arange(8 * RATE)
    level = np.where(i < 3 * RATE, 0.05, 0.5)
    return (level * np.sin(2 * np.pi * 440 * i / RATE) + 0.02 * np.sin(i * i)).astype(np.float32)


def test_the_transform_is_that_of_numpy() -> None:
    values = np.random.default_rng(0).normal(size=(2, 64))
    real, imaginary = (json.dumps(part.tolist()) for part in values)
    found = analysis(f"{{ const re = {real}, im = {imaginary}; m.fft(re, im); return [re, im]; }}")[0]
    expected = np.fft.fft(values[0] + 1j * values[1])
    assert np.allclose(found[0], expected.real) and np.allclose(found[1], expected.imag)


def test_the_loudness_is_that_of_the_core() -> None:
    (curve,) = analysis(f"{{ const s = {SOUND}; return [...m.loudnessOf([s, s.map(x => x / 2)], {RATE})]; }}")
    waveform = torch.from_numpy(np.stack([sound(), sound() / 2]))
    powers = windowed(weighted_powers([waveform], RATE), SHORT_TERM_HOPS)
    expected = [decibels(float(power)) + OFFSET for power in powers]
    middle = curve[SHORT_TERM_HOPS // 2 :][: len(expected)]
    assert len(curve) == 80 and np.allclose(middle, expected, atol=0.02)
    assert analysis(f"[...m.loudnessOf([new Float32Array(4 * {RATE})], {RATE})]")[0] == [-70] * 40


def test_a_tone_is_one_bright_row() -> None:
    picture = analysis(f"{{ const p = m.spectrogramOf({SOUND}, {RATE}); return {{ ...p, levels: [...p.levels] }}; }}")[
        0
    ]
    levels = np.array(picture["levels"]).reshape(picture["rows"], picture["columns"])
    assert levels.shape == (96, 160)
    loud, quiet = levels[:, 120], levels[:, 20]
    mel = np.log1p(np.array([40, 440, RATE / 2]) / 700)
    expected = 95 - (mel[1] - mel[0]) / (mel[2] - mel[0]) * 96
    assert abs(int(loud.argmax()) - expected) <= 1 and loud.max() > quiet.max() > loud[10]


def test_the_first_beat_is_found() -> None:
    clicks = f"""const s = new Float32Array(20 * {RATE}); for (let t = 0.31; t < 20; t += 0.5)
        for (let i = 0; i < 400; i++) s[Math.round(t * {RATE}) + i] = Math.sin(i * 2) * Math.exp(-i / 60);"""
    (first,) = analysis(f"{{ {clicks} return m.firstBeatOf(m.onsetsOf(s, {RATE}), 120); }}")
    assert abs(first - 0.31) < 0.02
    assert analysis(f"m.firstBeatOf(m.onsetsOf(new Float32Array({RATE}), {RATE}), 120)") == [0]


def test_moments_snap_to_beats_and_to_bars_from_afar() -> None:
    grid = "{bpm: 120, first: 0.2, meter: 4}"
    assert beats(
        *(f"m.snapToBeat({second}, {grid}, 100)" for second in (0, 0.44, 0.46, 10.3)),
        f"m.snapToBeat(5, {grid}, 10)",
        f"m.strideOf({grid}, 10)",
        f"m.strideOf({grid}, 1)",
    ) == [0.2, 0.2, 0.7, 10.2, 4.2, 4, 16]


def test_lines_of_beats_and_bars() -> None:
    grid = "{bpm: 60, first: 1.5, meter: 3}"
    near, before, far = beats(
        f"m.linesOf({grid}, 2, 6, 100)", f"m.linesOf({grid}, 0, 1.6, 100)", f"m.linesOf({grid}, 0, 12, 4)"
    )
    assert near == [[2.5, False], [3.5, False], [4.5, True], [5.5, False]]
    assert before == [[0.5, False], [1.5, True]]
    assert far == [[1.5, True], [4.5, True], [7.5, True], [10.5, True]]


def test_tempos_and_time_signatures() -> None:
    assert beats(*(f"m.isTempo({value})" for value in ("120", "0", "NaN", "1000", "null"))) == [
        True, False, False, False, False,
    ]  # fmt: skip
    names = ["4/4", "3/4", "2", "6/8", "auto", "", None]
    assert beats(*(f"m.meterOf({json.dumps(name)})" for name in names)) == [4, 3, 2, 2, 4, 4, 4]
