"""What two sounds have in common, to ears that know nothing of how they were made."""

from __future__ import annotations

from collections.abc import Sequence

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
    """How far the sharpest corner within 5 ms of `at` seconds stands out of the millisecond around it.

    2 to 5 wherever sound is whole: even a drum hit builds up over many samples. A cut bends within one.
    """
    corners, middle = np.abs(np.diff(wave, n=2, axis=1)).max(0), int(at * RATE)
    sharpest = middle - 240 + int(corners[middle - 240 : middle + 240].argmax())
    around = np.concatenate((corners[sharpest - 48 : sharpest - 2], corners[sharpest + 3 : sharpest + 49]))
    return float(corners[sharpest] / (np.sqrt(np.mean(around**2)) + 1e-5))


def flux_at(wave: np.ndarray, at: float) -> float:
    """The largest change of the spectrum within 50 ms of `at` seconds, against the largest in the four seconds around
    it: near or below 1 where nothing breaks that does not break elsewhere."""
    change = np.abs(np.diff(listen.log_mel(wave, 1024, 480, 40), axis=0)).mean(1)
    middle = int(at * 100)
    near = change[middle - 5 : middle + 5].max()
    around = np.concatenate((change[max(0, middle - 200) : middle - 5], change[middle + 5 : middle + 200]))
    return float(near / around.max())


def distance_of_timbre(a: np.ndarray, b: np.ndarray) -> float:
    """Between the mean spectra in 40 bands, whatever the level; 0 for one sound. What is 35 dB below the loudest band
    is covered by it."""
    x, y = (listen.log_mel(wave, bands=40).mean(0) for wave in (a, b))
    return float(np.std(np.maximum(x, x.max() - 4) - np.maximum(y, y.max() - 4)))


def likeness_of_notes(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the chroma of two parts, −1…1: which notes they have, not when."""
    return float(np.corrcoef(listen.chroma(a), listen.chroma(b))[0, 1])


def kinship(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """Distance of timbre and likeness of notes."""
    return distance_of_timbre(old, new), likeness_of_notes(old, new)


def strange_at(
    waves: Sequence[np.ndarray], at: float, strangers: Sequence[tuple[float, float]], before: float = 8.0
) -> set[str]:
    """What tells that something else begins at `at` seconds; nothing where songs go on.

    `strangers` is the kinship of each song's last `before` seconds with sounds that have nothing to do with it. Timbre
    and notes must be nearer than that, and the spectrum not break, on average over the songs: one song alone may change
    its instruments or its chord there.
    """
    seam = int(at * RATE)
    parts = [(wave[:, seam - int(before * RATE) : seam], wave[:, seam:]) for wave in waves]
    timbre, notes = np.array([kinship(old, new) for old, new in parts]).T
    strange_timbre, strange_notes = np.array(strangers).T
    heard = {
        "level": max(abs(level(old) - level(new)) for old, new in parts) > 9,
        "click": max(click(wave, at) for wave in waves) > 6,
        "flux": np.mean([flux_at(wave, at) for wave in waves]) > 0.9,
        "timbre": np.mean(timbre / strange_timbre) > 0.72,
        "notes": np.mean(notes - strange_notes) < 0.18,
    }
    return {name for name, strange in heard.items() if strange}
