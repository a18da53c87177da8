"""Mix stems, and split a song into stems that add up to it: gains, delays, and peaks that do not clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import MAX_SECONDS
from ..errors import RequestError
from .level import check_rate, is_finite

MIN_GAIN, MAX_GAIN = -60.0, 24.0  # dB
MAX_HEADROOM = 24.0  # dB


@dataclass(frozen=True, eq=False)
class Stem:
    """A track `[channels, samples]` with one or two channels, float32.

    gain: dB from −60 to 24; −60 mutes the stem.
    delay: seconds of silence before the stem, from 0 to 600.

    Raises RequestError.
    """

    waveform: Tensor
    gain: float = 0.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        shape = list(self.waveform.shape)
        if len(shape) != 2 or shape[0] not in (1, 2) or not shape[1]:
            raise RequestError(f"stem must be [1 or 2 channels, samples], got {shape}")
        if not is_finite(self.waveform):
            raise RequestError("stem contains NaN or infinite samples; all must be finite")
        _check("gain", self.gain, MIN_GAIN, MAX_GAIN, "dB")
        _check("delay", self.delay, 0, MAX_SECONDS, "seconds")

    @property
    def factor(self) -> float:
        """The factor of the samples, 0 for a muted stem."""
        return 0.0 if self.gain == MIN_GAIN else 10 ** (self.gain / 20)


@dataclass(frozen=True, eq=False)
class Mix:
    """The sum of stems.

    waveform: `[channels, samples]`, as long as the last stem sounds; stereo if one stem is.
    gain: dB by which the sum is turned down for its headroom, at most 0.
    """

    waveform: Tensor
    gain: float


@dataclass(frozen=True, eq=False)
class SplitSong:
    """Stems that add up to a song.

    waveforms: `[channels, samples]` each, of equal length and start. The last one is the rest of the song.
    gain: dB by which all are turned down together for their headroom, at most 0, in steps of 0.1.
    """

    waveforms: list[Tensor]
    gain: float


def mix_stems(stems: Sequence[Stem], sample_rate: int, headroom: float = 1.0) -> Mix:
    """Return the sum of stems with this sample rate in Hz.

    headroom: dB from 0 to 24 that the peak stays below full scale. A louder sum is turned down as a whole.

    Raises RequestError.
    """
    starts, length, channels = _layout(stems, sample_rate, headroom)
    total = torch.zeros(channels, length)
    for start, stem in zip(starts, stems, strict=True):
        total[:, start : start + stem.waveform.shape[-1]].add_(stem.waveform.to("cpu"), alpha=stem.factor)
    gain = _gain([total], headroom)
    return Mix(total.mul_(10 ** (gain / 20)) if gain else total, gain)


def split_song(song: Tensor, stems: Sequence[Stem], sample_rate: int, headroom: float = 1.0) -> SplitSong:
    """Return the stems as `mix_stems` adds them up, and the rest that they leave out of the song.

    song: `[channels, samples]` with this sample rate in Hz.
    headroom: dB from 0 to 24 that all peaks stay below full scale. Louder stems are turned down together.

    The sum of all is the song, turned down by `gain`, within the rounding of float32. Raises RequestError.
    """
    starts, length, channels = _layout(stems, sample_rate, headroom)
    rest = torch.zeros(max(channels, len(song)), max(length, song.shape[-1]))
    rest[:, : song.shape[-1]] = song.to("cpu")
    waveforms = []
    for start, stem in zip(starts, stems, strict=True):
        waveform = torch.zeros_like(rest)
        waveform[:, start : start + stem.waveform.shape[-1]].add_(stem.waveform.to("cpu"), alpha=stem.factor)
        rest.sub_(waveform)
        waveforms.append(waveform)
    waveforms.append(rest)
    gain = math.floor(10 * _gain(waveforms, headroom)) / 10
    return SplitSong([waveform.mul_(10 ** (gain / 20)) if gain else waveform for waveform in waveforms], gain)


def _layout(stems: Sequence[Stem], sample_rate: int, headroom: float) -> tuple[list[int], int, int]:
    """Return the start of each stem, and the samples and channels of their sum."""
    check_rate(sample_rate)
    _check("headroom", headroom, 0, MAX_HEADROOM, "dB")
    if not stems:
        raise RequestError("stems is empty; give at least one stem")
    starts = [round(stem.delay * sample_rate) for stem in stems]
    length = max(start + stem.waveform.shape[-1] for start, stem in zip(starts, stems, strict=True))
    if length > MAX_SECONDS * sample_rate:
        raise RequestError(f"stems last {length / sample_rate:.1f} seconds with their delay, at most {MAX_SECONDS} fit")
    return starts, length, max(len(stem.waveform) for stem in stems)


def _gain(waveforms: list[Tensor], headroom: float) -> float:
    """Return the dB, at most 0, that bring the highest peak below the headroom."""
    peak = max(max(float(waveform.max()), -float(waveform.min())) for waveform in waveforms)
    ceiling = 10 ** (-headroom / 20)
    return 20 * math.log10(ceiling / peak) if peak > ceiling else 0.0


def error_of(waveform: Tensor, reference: Tensor) -> float:
    """Return the power of the difference of two `[channels, samples]` in dB of the reference. −inf if they are equal.

    The part that only one of them has counts as silence of the other.
    """
    length = max(waveform.shape[-1], reference.shape[-1])
    first, second = (torch.nn.functional.pad(each, (0, length - each.shape[-1])) for each in (waveform, reference))
    difference, power = float((first - second).square().mean()), float(second.square().mean())
    if difference == 0:
        return -math.inf
    return math.inf if power == 0 else 10 * math.log10(difference / power)


def _check(name: str, value: object, low: float, high: float, unit: str) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise RequestError(f"{name} must be from {low:g} to {high:g} {unit}, got {value!r:.80}")
