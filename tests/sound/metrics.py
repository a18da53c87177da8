"""Similarity metrics of sounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training import analysis

RATE = analysis.RATE


def rhythm_similarity(a: np.ndarray, b: np.ndarray, slack: int = 8) -> float:
    """Return the correlation (−1…1) of the onset strengths at the best shift of up to `slack` times 10 ms."""
    x, y = analysis.onsets(a), analysis.onsets(b)
    size = min(len(x), len(y)) - 2 * slack
    middle = x[slack : slack + size]
    return max(float(np.corrcoef(middle, y[shift : shift + size])[0, 1]) for shift in range(2 * slack + 1))


def harmony_similarity(a: np.ndarray, b: np.ndarray, seconds: float = 1.0) -> float:
    """Return the mean correlation of the chroma, second by second."""
    step = int(seconds * RATE)
    count = min(a.shape[1], b.shape[1]) // step
    parts = [slice(i * step, (i + 1) * step) for i in range(count)]
    return float(np.mean([np.corrcoef(analysis.chroma(a[:, p]), analysis.chroma(b[:, p]))[0, 1] for p in parts]))


def level(wave: np.ndarray) -> float:
    """Return the rms in dB."""
    return float(20 * np.log10(np.sqrt(np.mean(wave**2)) + 1e-9))


def click(wave: np.ndarray, at: float) -> float:
    """Return the largest second difference within 5 ms of `at` seconds, relative to the millisecond around it.

    Continuous sound has 2 to 5, because even a drum hit rises over many samples. A cut is much higher.
    """
    bends, middle = np.abs(np.diff(wave, n=2, axis=1)).max(0), int(at * RATE)
    sharpest = middle - 240 + int(bends[middle - 240 : middle + 240].argmax())
    around = np.concatenate((bends[sharpest - 48 : sharpest - 2], bends[sharpest + 3 : sharpest + 49]))
    return float(bends[sharpest] / (np.sqrt(np.mean(around**2)) + 1e-5))


def spectral_flux(wave: np.ndarray, at: float) -> float:
    """Return the largest spectral change within 50 ms of `at` seconds, relative to the four seconds around it.

    Continuous sound has about 1 or less.
    """
    change = np.abs(np.diff(analysis.log_mel(wave, 1024, 480, 40), axis=0)).mean(1)
    middle = int(at * 100)
    near = change[middle - 5 : middle + 5].max()
    around = np.concatenate((change[max(0, middle - 200) : middle - 5], change[middle + 5 : middle + 200]))
    return float(near / around.max())


def timbre_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the level-independent distance of the mean spectra in 40 bands.

    Bands 35 dB below the loudest band are masked and do not count.
    """
    x, y = (analysis.log_mel(wave, bands=40).mean(0) for wave in (a, b))
    return float(np.std(np.maximum(x, x.max() - 4) - np.maximum(y, y.max() - 4)))


def chroma_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation (−1…1) of the mean chroma, which is independent of time."""
    return float(np.corrcoef(analysis.chroma(a), analysis.chroma(b))[0, 1])


def timbre_and_chroma(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    return timbre_distance(old, new), chroma_similarity(old, new)


def discontinuities(
    waves: Sequence[np.ndarray], at: float, unrelated: Sequence[tuple[float, float]], before: float = 8.0
) -> set[str]:
    """Return the metrics by which another song begins at `at` seconds. A continuation has none.

    `unrelated` has, for each song, the `timbre_and_chroma` of its last `before` seconds and unrelated sounds. Timbre
    and chroma must be nearer than these on average over the songs, because a single song may change there.
    """
    seam = int(at * RATE)
    parts = [(wave[:, seam - int(before * RATE) : seam], wave[:, seam:]) for wave in waves]
    timbre, chroma = np.array([timbre_and_chroma(old, new) for old, new in parts]).T
    unrelated_timbre, unrelated_chroma = np.array(unrelated).T
    broken = {
        "level": max(abs(level(old) - level(new)) for old, new in parts) > 9,
        "click": max(click(wave, at) for wave in waves) > 6,
        "flux": np.mean([spectral_flux(wave, at) for wave in waves]) > 0.9,
        "timbre": np.mean(timbre / unrelated_timbre) > 0.72,
        "notes": np.mean(chroma - unrelated_chroma) < 0.18,
    }
    return {name for name, is_broken in broken.items() if is_broken}
