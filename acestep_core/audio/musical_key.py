"""Key of music: the pitch classes of spectral peaks, compared with the key profiles of Krumhansl and Kessler (1982)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TONICS = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
# How well each chromatic step fits a key, as listeners rated it.
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
WINDOW_SECONDS = 0.34  # separates the semitones of a bass
LOWEST, HIGHEST = 55.0, 1000.0  # Hz; above, most peaks are overtones
BASS = 200.0  # Hz; from here up, peaks weigh less
FAINT = 0.01  # of the strongest peak in a frame
SEMITONE_WIDTH = 0.2  # peaks between two semitones weigh less
MIN_SECONDS = 2.0
TONAL = 0.5  # correlation with a profile; noise and drums stay below
CLEAR = 0.2  # difference of correlations if nothing is unsure
PIECE = 256  # frames


def find_key(mono: Tensor, sample_rate: int) -> tuple[str | None, float]:
    """Return the key of `[samples]`, such as "C# minor", and a confidence from 0 to 1. Without tones it is None."""
    if mono.shape[-1] < MIN_SECONDS * sample_rate:
        return None, 0.0
    correlations = _correlations(chroma(mono, sample_rate))
    (best, key), (second, _) = sorted(((value, key) for key, value in correlations.items()), reverse=True)[:2]
    if not best >= TONAL:
        return None, 0.0
    return key, min(1.0, (best - second) / CLEAR)


def chroma(mono: Tensor, sample_rate: int) -> Tensor:
    """Return the shares of the twelve pitch classes from C, zeros for silence. Each frame has the same weight.

    The tuning of the recording is found first.
    """
    pitches, weights, frames = _peaks(mono, sample_rate)
    if not len(pitches):
        return torch.zeros(12)
    turns = 2 * math.pi * pitches
    pitches = pitches - torch.atan2((weights * turns.sin()).sum(), (weights * turns.cos()).sum()) / (2 * math.pi)
    nearest = pitches.round()
    weights = weights * torch.exp(-0.5 * ((pitches - nearest) / SEMITONE_WIDTH) ** 2)
    classes = torch.zeros(int(frames.max()) + 1, 12)
    classes.index_put_((frames, nearest.long() % 12), weights, accumulate=True)
    sums = classes.sum(1, keepdim=True)
    shares = (classes / (sums + 0.01 * sums.max()).clamp(min=1e-9)).sum(0)
    return shares / shares.sum().clamp(min=1e-9)


def _peaks(mono: Tensor, sample_rate: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the spectral peaks: pitches in semitones (MIDI numbers), weights, and the numbers of their frames."""
    size = 2 ** round(math.log2(WINDOW_SECONDS * sample_rate))
    hop, window = size // 4, torch.hann_window(size)
    highest = min(math.ceil(HIGHEST * size / sample_rate) + 2, size // 2 + 1)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    frames = (mono.shape[-1] - size) // hop + 1
    for start in range(0, frames, PIECE):
        stop = min(frames, start + PIECE)
        piece = mono[start * hop : (stop - 1) * hop + size]
        spectrum = torch.stft(piece, size, hop, window=window, center=False, return_complex=True).abs()
        below, middle, above = spectrum[: highest - 2], spectrum[1 : highest - 1], spectrum[2:highest]
        logs = [part.clamp(min=1e-9).log() for part in (below, middle, above)]
        curve = (logs[0] - 2 * logs[1] + logs[2]).clamp(max=-1e-6)
        places = torch.arange(1, highest - 1)[:, None] + (0.5 * (logs[0] - logs[2]) / curve).clamp(-0.5, 0.5)
        frequencies = places * (sample_rate / size)
        peak = (middle >= below) & (middle > above) & (frequencies > LOWEST) & (frequencies < HIGHEST)
        peak &= (middle > FAINT * spectrum.amax(0)) & (middle > 1e-6)
        numbers = torch.arange(start, stop).expand_as(middle)
        found.append((frequencies[peak], middle[peak], numbers[peak]))
    frequencies, magnitudes, numbers = (torch.cat(parts) for parts in zip(*found, strict=True))
    weights = magnitudes.sqrt() * BASS / frequencies.clamp(min=BASS)
    return 69 + 12 * (frequencies / 440).log2(), weights, numbers


def _correlations(shares: Tensor) -> dict[str, float]:
    """Return the correlation of chroma with the profile of each key."""
    correlations = {}
    for mode, values in PROFILES.items():
        profile = torch.tensor(values)
        for step, tonic in enumerate(TONICS[mode]):
            pair = torch.stack([shares, profile.roll(step)])
            correlations[f"{tonic} {mode}"] = float(torch.corrcoef(pair)[0, 1]) if shares.std() > 0 else 0.0
    return correlations
