"""What two sounds have in common, to ears that know nothing of how they were made."""

from __future__ import annotations

import numpy as np

from training import listen

RATE = listen.RATE


def likeness_of_rhythm(a: np.ndarray, b: np.ndarray, slack: int = 8) -> float:
    """Correlation of the onset strengths, −1…1, at the best shift of up to `slack` hundredths of a second."""
    x, y = listen.onsets(a), listen.onsets(b)
    size = min(len(x), len(y)) - 2 * slack
    middle = x[slack : slack + size]
    return max(float(np.corrcoef(middle, y[shift : shift + size])[0, 1]) for shift in range(2 * slack + 1))


def likeness_of_harmony(a: np.ndarray, b: np.ndarray, seconds: float = 1.0) -> float:
    """Mean correlation of the chroma, second by second."""
    step = int(seconds * RATE)
    count = min(a.shape[1], b.shape[1]) // step
    parts = [slice(i * step, (i + 1) * step) for i in range(count)]
    return float(np.mean([np.corrcoef(listen.chroma(a[:, p]), listen.chroma(b[:, p]))[0, 1] for p in parts]))


def level(wave: np.ndarray) -> float:
    """Root mean square in dB."""
    return float(20 * np.log10(np.sqrt(np.mean(wave**2)) + 1e-9))


def click(wave: np.ndarray, at: float) -> float:
    """How far the largest step between neighbouring samples within 5 ms of `at` seconds exceeds the usual large step
    (99.9th percentile) of the second around it; near 1 without a click."""
    steps = np.abs(np.diff(wave, axis=1)).max(0)
    middle = int(at * RATE)
    near, around = steps[middle - 240 : middle + 240], steps[max(0, middle - RATE // 2) : middle + RATE // 2]
    return float(near.max() / (np.quantile(around, 0.999) + 1e-6))


def flux_at(wave: np.ndarray, at: float) -> float:
    """The largest change of the spectrum within 50 ms of `at` seconds, against the largest in the four seconds around
    it: near or below 1 where nothing breaks that does not break elsewhere."""
    change = np.abs(np.diff(listen.log_mel(wave, 1024, 480, 40), axis=0)).mean(1)
    middle = int(at * 100)
    near = change[middle - 5 : middle + 5].max()
    around = np.concatenate((change[max(0, middle - 200) : middle - 5], change[middle + 5 : middle + 200]))
    return float(near / around.max())
