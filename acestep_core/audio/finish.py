"""Finish songs for publication: their ends, their loudness, and a ceiling for their true peaks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..errors import RequestError
from .ends import fade_in, fade_out, find_ending, sounding_part
from .level import check_rate, is_finite
from .limiter import limited, reduction_factors
from .loudness import GATING_HOPS, Loudness, gated, loudness_of, weighted_powers, windowed
from .true_peak import PIECE, group_peaks, peak_level

TARGETS: Mapping[str, float | None] = {
    "streaming": -14.0,
    "apple": -16.0,
    "broadcast": -23.0,
    "club": -9.0,
    "none": None,
}
MIN_LOUDNESS, MAX_LOUDNESS = -60.0, -5.0  # LUFS
MIN_PEAK, MAX_PEAK = -20.0, 0.0  # dBTP
DEFAULT_PEAK = -1.0  # dBTP
MAX_FADE = 60.0  # seconds
MAX_GAIN = 60.0  # dB
MAX_REDUCTION = 12.0  # dB; more limiting than that is distortion
ENDING_FADE = 2.0  # seconds of fade if the music does not end by itself
MIN_SECONDS = 0.4  # loudness is not defined for less
PASSES = 5  # of the limiter, at most: each brings the loudness closer to the target
NEAR, TOLERANCE = 0.05, 0.2  # LU: where the search stops, and what counts as reached


@dataclass(frozen=True)
class Finish:
    """The finishing of a song. The defaults change nothing.

    loudness: target of the integrated loudness, from −60 to −5 LUFS, or a name in `TARGETS`. None keeps the level.
    true_peak: ceiling in dBTP, from −20 to 0. None is −1 if the level changes, and no ceiling if not.
    fade_in, fade_out: seconds of an equal-power fade, up to 60.
    trim: True removes silence (below −60 dBFS) at both ends.
    ending: the last seconds in which to search for the end of the music, up to 60. The song is cut there, and fades out
        if the music goes on.
    gain: dB from −60 to 60, instead of the gain that reaches `loudness`.

    Raises RequestError for any other value.
    """

    loudness: float | None = None
    true_peak: float | None = None
    fade_in: float = 0.0
    fade_out: float = 0.0
    trim: bool = False
    ending: float = 0.0
    gain: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "loudness", loudness_target(self.loudness))
        _check_number("true_peak", self.true_peak, MIN_PEAK, MAX_PEAK, "dBTP", optional=True)
        _check_number("gain", self.gain, -MAX_GAIN, MAX_GAIN, "dB", optional=True)
        for name in ("fade_in", "fade_out", "ending"):
            _check_number(name, getattr(self, name), 0, MAX_FADE, "seconds")
        if not isinstance(self.trim, bool):
            raise RequestError(f"trim must be true or false, got {self.trim!r:.80}")

    @property
    def ceiling(self) -> float | None:
        """The ceiling in dBTP, None for no limiter."""
        changes_level = self.loudness is not None or self.gain is not None
        return DEFAULT_PEAK if self.true_peak is None and changes_level else self.true_peak

    def to_dict(self) -> dict[str, Any]:
        """Return the values that are not the default, for JSON."""
        defaults = asdict(Finish())
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    @classmethod
    def from_dict(cls, values: object) -> Finish:
        """Invert `to_dict`. Unknown names are ignored. Raises RequestError."""
        if not isinstance(values, Mapping):
            raise RequestError(f"finish must be an object with values such as loudness, got {values!r:.80}")
        return cls(**{item.name: values[item.name] for item in fields(cls) if item.name in values})


@dataclass(frozen=True)
class FinishedSong:
    """A finished song.

    waveform: `[channels, samples]`, float32.
    before, after: its levels, before with the new ends.
    gain: dB, before the limiter.
    note: a sentence if the target was not reached, else empty.
    """

    waveform: Tensor
    before: Loudness
    after: Loudness
    gain: float
    note: str = ""

    def __str__(self) -> str:
        return f"{self.before} → {self.after}" + (f"; {self.note}" if self.note else "")


def loudness_target(value: object) -> float | None:
    """Return a target in LUFS from a number or a name, None for none. Raises RequestError."""
    name = value.strip().lower() if isinstance(value, str) else ""
    if name in TARGETS:
        return TARGETS[name]
    try:
        number = float(name) if name else value
        _check_number("loudness", number, MIN_LOUDNESS, MAX_LOUDNESS, "LUFS", optional=True)
    except (ValueError, RequestError):
        raise RequestError(
            f"loudness must be from {MIN_LOUDNESS:g} to {MAX_LOUDNESS:g} LUFS or one of {', '.join(TARGETS)}, "
            f"got {value!r:.80}"
        ) from None
    return None if number is None else float(number)  # type: ignore[arg-type]


def finish_songs(
    waveforms: Sequence[Tensor], sample_rate: int, finish: Finish, *, one_gain: bool = False, in_place: bool = False
) -> list[FinishedSong]:
    """Finish songs `[channels, samples]`, −1…1, each of its own length.

    one_gain: True changes the level of all songs by one gain, with which they have the target together. The songs keep
        their relation to each other, as on an album.
    in_place: True overwrites the waveforms, for less memory.

    Raises RequestError.
    """
    check_rate(sample_rate)
    songs = [_with_new_ends(_checked(waveform), sample_rate, finish, in_place) for waveform in waveforms]
    groups = [songs] if one_gain else [[song] for song in songs]
    return [finished for group in groups for finished in _with_new_level(group, sample_rate, finish)]


def _checked(waveform: Tensor) -> Tensor:
    if not isinstance(waveform, Tensor) or waveform.ndim != 2 or waveform.shape[0] not in (1, 2):
        given = list(waveform.shape) if isinstance(waveform, Tensor) else type(waveform).__name__
        raise RequestError(f"waveform must be a tensor [1 or 2 channels, samples], got {given}")
    if not waveform.numel():
        raise RequestError(f"waveform is empty: its shape is {list(waveform.shape)}")
    if not is_finite(waveform):
        raise RequestError("waveform contains NaN or infinite samples; all must be finite")
    return waveform.detach().to("cpu", torch.float32)


def _with_new_ends(waveform: Tensor, sample_rate: int, finish: Finish, in_place: bool) -> Tensor:
    """Return the waveform, cut and faded; a copy unless `in_place`."""
    start, end, fade = 0, waveform.shape[-1], finish.fade_out
    if finish.ending:
        end, ends = find_ending(waveform, sample_rate, finish.ending)
        fade = fade or (0.0 if ends else ENDING_FADE)
    if finish.trim:
        start, end = sounding_part(waveform[:, :end], sample_rate)
    waveform = waveform[:, start:end] if in_place else waveform[:, start:end].clone()
    fade_in(waveform, round(finish.fade_in * sample_rate))
    fade_out(waveform, round(fade * sample_rate))
    return waveform


@dataclass(frozen=True, eq=False)
class _Measured:
    """A song with its `weighted_powers` and `group_peaks`."""

    waveform: Tensor
    sample_rate: int
    powers: Tensor
    peaks: Tensor

    @classmethod
    def of(cls, waveform: Tensor, sample_rate: int) -> _Measured:
        powers = weighted_powers(waveform.split(PIECE, dim=-1), sample_rate)
        return cls(waveform, sample_rate, powers, group_peaks(waveform, sample_rate))

    def louder(self, gain: float, ceiling: float) -> Iterator[Tensor]:
        """Yield pieces of the waveform after a gain in dB and the limiter."""
        factor = 10 ** (gain / 20)
        factors = reduction_factors(self.peaks * factor, 10 ** (ceiling / 20), self.sample_rate)
        return limited(self.waveform, factors, factor)

    def louder_powers(self, gain: float, ceiling: float) -> Tensor:
        """Return the powers after a gain in dB and the limiter."""
        if peak_level(self.peaks) + gain <= ceiling:
            return self.powers * 10 ** (gain / 10)
        return weighted_powers(self.louder(gain, ceiling), self.sample_rate)


def _with_new_level(songs: list[Tensor], sample_rate: int, finish: Finish) -> list[FinishedSong]:
    """Bring songs to the target with one gain and a limiter, in place."""
    measured = [_Measured.of(song, sample_rate) for song in songs]
    before = [loudness_of(song.powers, song.peaks) for song in measured]
    ceiling = finish.ceiling
    if ceiling is None:
        return [FinishedSong(song, levels, levels, 0.0) for song, levels in zip(songs, before, strict=True)]
    gain, note, powers = finish.gain or 0.0, "", None
    if finish.gain is None and finish.loudness is not None:
        gain, note, powers = _find_gain(measured, finish.loudness, ceiling)
    powers = powers or [song.louder_powers(gain, ceiling) for song in measured]
    finished = []
    for song, levels, each in zip(measured, before, powers, strict=True):
        peaks = song.peaks
        if gain != 0 or levels.true_peak > ceiling:
            place = 0
            for piece in song.louder(gain, ceiling):
                song.waveform[:, place : place + piece.shape[-1]] = piece
                place += piece.shape[-1]
            peaks = group_peaks(song.waveform, sample_rate)
        finished.append(FinishedSong(song.waveform, levels, loudness_of(each, peaks), gain, note))
    return finished


def _find_gain(songs: list[_Measured], target: float, ceiling: float) -> tuple[float, str, list[Tensor] | None]:
    """Return the gain in dB with which the limited songs reach the target, and a sentence if they do not.

    The third value is the powers of the songs after this gain, if they are known.
    """
    reached = _together([song.powers for song in songs])
    loudest = max(peak_level(song.peaks) for song in songs)
    if reached == -math.inf:
        longest = max(song.waveform.shape[-1] / song.sample_rate for song in songs)
        reason = f"too short ({longest:.2g} of {MIN_SECONDS} seconds)" if longest < MIN_SECONDS else "silent"
        return 0.0, f"loudness unchanged, because the audio is {reason}", None
    highest = min(MAX_GAIN, ceiling - loudest + MAX_REDUCTION)
    gain = min(target - reached, highest)
    points = [(gain, target)]  # gains in dB, and the loudness that each gave
    for left in reversed(range(PASSES)):
        powers = [song.louder_powers(gain, ceiling) for song in songs]
        points.append((gain, _together(powers)))
        short = target - points[-1][1]
        if abs(short) < NEAR or (gain == highest and short > 0) or not left:
            break
        gain = min(gain + short / _slope(points), highest)
    if abs(short) <= TOLERANCE:
        return gain, "", powers
    return gain, f"peak-limited: {target:g} LUFS would need more than {MAX_REDUCTION:g} dB of limiting", powers


def _together(powers: list[Tensor]) -> float:
    """Return the integrated loudness of several songs together."""
    return gated(torch.cat([windowed(each, GATING_HOPS) for each in powers]))


def _slope(points: list[tuple[float, float]]) -> float:
    """Return the change of the loudness per dB of gain at the last two points. A limiter brings it below 1."""
    (first, low), (last, high) = points[-2:]
    return min(max((high - low) / (last - first), 0.2), 1.0) if abs(last - first) > 0.01 else 1.0


def _check_number(name: str, value: object, low: float, high: float, unit: str, optional: bool = False) -> None:
    if optional and value is None:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        none = ", or none" if optional else ""
        raise RequestError(f"{name} must be from {low:g} to {high:g} {unit}{none}, got {value!r:.80}")
