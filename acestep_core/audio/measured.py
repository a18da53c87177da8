"""Tempo and key measured in a recording, and their comparison with the metadata of a song."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import RequestError, shown
from ..song.song import Metadata, Song
from .level import check_rate, is_finite
from .musical_key import find_key
from .tempo import find_tempo

TOLERANCE = 0.04  # of the tempo; the steps of tempo that listeners notice are a little larger
MAX_TOLERANCE = 0.5
UNSURE = 0.3  # a confidence below is marked
_RULE = re.compile(r"bpm(?::\s*(?:±|\+-|\+/-)?\s*(\d+(?:\.\d+)?)\s*%?)?|key(?::\s*(relative|exact))?", re.IGNORECASE)
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


@dataclass(frozen=True)
class MeasuredMusic:
    """Tempo and key of a recording, as measured.

    bpm: None without a pulse. A measured tempo may be half or double of what a person taps.
    key: as in `Metadata`; None without tones.
    bpm_confidence, key_confidence: from 0 to 1. Above 0.3, nine of ten tempos are right up to an octave, and nine of
        ten keys are right.
    """

    bpm: float | None
    bpm_confidence: float
    key: str | None
    key_confidence: float

    def __str__(self) -> str:
        bpm = "no tempo" if self.bpm is None else f"{self.bpm:.0f} BPM{_doubt(self.bpm_confidence)}"
        key = "no key" if self.key is None else f"{self.key}{_doubt(self.key_confidence)}"
        return f"{bpm}, {key}"

    def to_dict(self) -> dict[str, float | str | None]:
        """Return the values for JSON."""
        return {
            "bpm": self.bpm,
            "bpm_confidence": round(self.bpm_confidence, 2),
            "key": self.key,
            "key_confidence": round(self.key_confidence, 2),
        }


def measure_music(waveform: Tensor, sample_rate: int) -> MeasuredMusic:
    """Measure tempo and key of `[channels, samples]`, −1…1. Raises RequestError."""
    check_rate(sample_rate)
    if not isinstance(waveform, Tensor) or waveform.ndim != 2 or not waveform.numel():
        given = list(waveform.shape) if isinstance(waveform, Tensor) else type(waveform).__name__
        raise RequestError(f"waveform must be a tensor [channels, samples] with samples, got {given}")
    if not is_finite(waveform):
        raise RequestError("waveform contains NaN or infinite samples; all must be finite")
    mono = waveform.detach().float().mean(0).cpu()
    peak = float(mono.abs().max())
    if not peak > 0:
        return MeasuredMusic(None, 0.0, None, 0.0)
    mono /= peak
    return MeasuredMusic(*find_tempo(mono, sample_rate), *find_key(mono, sample_rate))


@dataclass(frozen=True)
class MusicFilter:
    """Bounds for the difference between a recording and the metadata of its song.

    bpm: largest relative difference of the tempo, such as 0.04; half and double of it count as equal. None does not
        compare it.
    key: "exact", "relative" (A minor also passes for C major), or None.

    Raises RequestError.
    """

    bpm: float | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if self.bpm is not None and not 0 < self.bpm <= MAX_TOLERANCE:
            raise RequestError(f"keep: the tolerance of bpm must be above 0 and at most 50 %, got {self.bpm * 100:g} %")
        if self.key not in (None, "exact", "relative"):
            raise RequestError(f"keep: key must be exact or relative, got {shown(self.key)}")

    @classmethod
    def parse(cls, rules: Sequence[str]) -> MusicFilter:
        """Read rules such as `bpm:±4%`, `bpm`, `key` and `key:relative`. Raises RequestError."""
        bpm, key = None, None
        for rule in rules:
            match = _RULE.fullmatch(rule.strip())
            if match is None:
                raise RequestError(f"keep must be bpm, bpm:±4%, key or key:relative, got {shown(rule)}")
            if rule.strip().lower().startswith("bpm"):
                bpm = TOLERANCE if match[1] is None else float(match[1]) / 100
            else:
                key = (match[2] or "exact").lower()
        return cls(bpm, key)

    def mismatches(self, song: Song | Metadata, measured: MeasuredMusic) -> list[str]:
        """Return a sentence for each difference. A song without the metadata has none."""
        metadata = song.metadata if isinstance(song, Song) else song
        found = []
        if self.bpm is not None and metadata.bpm is not None and not same_tempo(metadata.bpm, measured.bpm, self.bpm):
            value = "none" if measured.bpm is None else f"{measured.bpm:.0f}"
            found.append(f"BPM is {metadata.bpm}, measured {value}")
        if self.key is not None and metadata.key is not None:
            if not same_key(metadata.key, measured.key, relative=self.key == "relative"):
                found.append(f"key is {metadata.key}, measured {measured.key or 'none'}")
        return found


def same_tempo(bpm: float, other: float | None, tolerance: float = TOLERANCE) -> bool:
    """Return True if two tempos differ by at most a relative tolerance, or one is about double the other."""
    return other is not None and any(abs(other / (bpm * factor) - 1) <= tolerance for factor in (1, 2, 0.5))


def same_key(key: str, other: str | None, relative: bool = False) -> bool:
    """Return True if two keys are equal, in any spelling. relative: True also for keys with the same notes."""
    if other is None:
        return False
    (first, mode), (second, other_mode) = _step(key), _step(other)
    if mode == other_mode:
        return first == second
    return relative and (first - second) % 12 == (3 if mode == "major" else 9)


def _step(key: str) -> tuple[int, str]:
    """Return the semitones of a key's tonic above C, and its mode."""
    tonic, _, mode = key.partition(" ")
    return (_STEPS[tonic[0]] + tonic.count("#") - tonic[1:].count("b")) % 12, mode


def _doubt(confidence: float) -> str:
    return " (unsure)" if confidence < UNSURE else ""
