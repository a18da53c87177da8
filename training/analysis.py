"""Estimate tempo and key of a waveform, independently of the composer, for tests and evaluation."""

from __future__ import annotations

import numpy as np

from .styles import TONICS

RATE = 48_000
# Weights of the chromatic steps for a key. Only diatonic steps have one, so that all others count against the key.
MAJOR_PROFILE = (5, 0, 3, 0, 4, 3.5, 0, 4.5, 0, 3.5, 0, 2.5)
MINOR_PROFILE = (5, 0, 3, 4, 0, 3.5, 0, 4.5, 3, 0, 3, 0.5)


def _frames(mono: np.ndarray, size: int, hop: int) -> np.ndarray:
    mono = np.pad(mono, (0, max(0, size - len(mono))))
    return np.lib.stride_tricks.sliding_window_view(mono, size)[::hop]


def spectrogram(wave: np.ndarray, size: int = 2048, hop: int = 480) -> np.ndarray:
    """Return magnitudes `[frames, size // 2 + 1]` of the mono sum of `[2, samples]`."""
    return np.abs(np.fft.rfft(_frames(wave.mean(0), size, hop) * np.hanning(size).astype(np.float32), axis=1))


def mel_filters(size: int, bands: int = 80, low: float = 30, high: float = 18_000) -> np.ndarray:
    """Return triangular mel filters, `[size // 2 + 1, bands]`."""
    mel = np.linspace(*(2595 * np.log10(1 + np.array([low, high]) / 700)), bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    f = np.fft.rfftfreq(size, 1 / RATE)[:, None]
    rise = (f - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - f) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rise, fall), 0, None)


def log_mel(wave: np.ndarray, size: int = 2048, hop: int = 480, bands: int = 80, floor: float = 1e-3) -> np.ndarray:
    """Return natural logarithms of mel bands, `[frames, bands]`. A full-scale sine is about log(size / 4)."""
    return np.log(spectrogram(wave, size, hop) @ mel_filters(size, bands) + floor)


def onsets(wave: np.ndarray) -> np.ndarray:
    """Return the onset strength, 100 values a second."""
    rise = np.maximum(np.diff(log_mel(wave, 1024, 480, 40), axis=0), 0).mean(1)
    smooth = np.convolve(rise, np.ones(101) / 101, "same")
    return np.maximum(rise - smooth, 0)


def tempo(wave: np.ndarray, low: float = 50, high: float = 200) -> float:
    """Estimate the BPM by autocorrelation of the onsets at several multiples of the beat."""
    strength = onsets(wave)
    size = 2 * len(strength)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(strength, size)) ** 2, size)[: len(strength)]
    correlation /= np.arange(len(strength), 0, -1) + 50
    correlation = np.maximum(correlation, np.convolve(correlation, np.ones(3) / 3, "same"))
    bpm = np.arange(low, high, 0.25)
    score = np.zeros(len(bpm))
    for multiple, weight in ((1, 1.0), (2, 1.0), (3, 0.5), (4, 1.0), (8, 0.5)):
        lag = 6000 / bpm * multiple
        score += weight * np.interp(lag, np.arange(len(correlation)), correlation, right=0.0)
    prior = np.exp(-0.5 * (np.log2(bpm / 110) / 0.9) ** 2)
    return float(bpm[np.argmax(score * prior)])


def same_tempo(estimate: float, bpm: float, tolerance: float = 0.04) -> tuple[bool, bool]:
    """Return whether `estimate` is `bpm`, and whether it is `bpm` or a simple ratio of it, within `tolerance`."""

    def near(factor: float) -> bool:
        return abs(estimate / (bpm * factor) - 1) <= tolerance

    return near(1), any(near(f) for f in (1, 2, 0.5, 3, 1 / 3, 1.5, 2 / 3))


def chroma(wave: np.ndarray) -> np.ndarray:
    """Return the energy of the twelve pitch classes from C, which sums to 1."""
    size = 16384
    magnitude = spectrogram(wave, size, 4096)
    f = np.fft.rfftfreq(size, 1 / RATE)
    use = (f > 50) & (f < 1200)
    floor = np.quantile(magnitude[:, use], 0.8, axis=1, keepdims=True)
    strength = np.maximum(magnitude[:, use] - floor, 0).sum(0)
    pitch = 12 * np.log2(f[use] / 440) + 9
    near = np.exp(-0.5 * ((pitch - np.round(pitch)) / 0.15) ** 2)
    out = np.bincount(np.round(pitch).astype(int) % 12, weights=strength * near / np.sqrt(f[use]), minlength=12)
    return out / (out.sum() + 1e-9)


def key(wave: np.ndarray) -> tuple[str, str]:
    """Estimate tonic and mode by correlating the chroma with the profile of every key."""
    energy = chroma(wave)
    scores = {}
    for mode, profile in (("major", MAJOR_PROFILE), ("minor", MINOR_PROFILE)):
        for tonic in range(12):
            scores[TONICS[tonic], mode] = np.corrcoef(energy, np.roll(profile, tonic))[0, 1]
    return max(scores, key=scores.__getitem__)


def relative_key(tonic: str, mode: str) -> tuple[str, str]:
    """Return C major for A minor, and the reverse."""
    step, other = (9, "minor") if mode == "major" else (3, "major")
    return TONICS[(TONICS.index(tonic) + step) % 12], other
