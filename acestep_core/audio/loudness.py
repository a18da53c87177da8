"""Loudness of audio by ITU-R BS.1770-4 (LUFS) and loudness range by EBU Tech 3342 (LU), in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .level import check_rate
from .true_peak import PIECE, group_peaks, peak_level

HOPS_PER_SECOND = 10  # gating blocks start every 100 ms
GATING_HOPS, SHORT_TERM_HOPS = 4, 30  # 400 ms and 3 s
ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE, RANGE_GATE = -10.0, -20.0  # LU below the mean of what passes the absolute gate
OFFSET = -0.691  # makes a 997 Hz sine at 0 dBFS in one channel −3.01 LUFS


@dataclass(frozen=True)
class Loudness:
    """Levels of a piece of audio. Silence, and a value that needs longer audio, is −inf, and 0 for the range.

    integrated: loudness of the whole, LUFS, for audio of at least 0.4 seconds.
    short_term: highest loudness of any 3 seconds, LUFS.
    range: loudness range, LU.
    true_peak: highest level between the samples too, dBTP.
    """

    integrated: float
    short_term: float
    range: float
    true_peak: float

    def __str__(self) -> str:
        return f"{self.integrated:.1f} LUFS, {self.true_peak:.1f} dBTP, range {self.range:.1f} LU"


def measure_loudness(waveform: Tensor, sample_rate: int) -> Loudness:
    """Return the levels of `[channels, samples]`. All channels have the same weight. Raises RequestError."""
    check_rate(sample_rate)
    powers = weighted_powers(waveform.split(PIECE, dim=-1), sample_rate)
    return loudness_of(powers, group_peaks(waveform, sample_rate))


def loudness_of(powers: Tensor, peaks: Tensor) -> Loudness:
    """Return the levels of audio with these `weighted_powers` and `group_peaks`."""
    short_term = windowed(powers, SHORT_TERM_HOPS)
    return Loudness(
        integrated=gated(windowed(powers, GATING_HOPS)),
        short_term=decibels(float(short_term.max())) + OFFSET if len(short_term) else -math.inf,
        range=_range(short_term),
        true_peak=peak_level(peaks),
    )


def weighted_powers(blocks: Iterable[Tensor], sample_rate: int) -> Tensor:
    """Return the K-weighted power of each 100 ms, `[hops]`, float64, summed over the channels.

    blocks: consecutive pieces `[channels, samples]` of the audio. A last part of less than 100 ms does not count.
    """
    # The filter's impulse response has decayed by 250 dB after a sixth of a second. So a spectrum of some seconds holds
    # the exact filter, and each segment repeats that much of the one before it.
    hop = round(sample_rate / HOPS_PER_SECOND)
    tail = 2 ** math.ceil(math.log2(sample_rate / 6))
    size = 8 * tail
    valid = (size - tail) // hop * hop
    response = _k_weighting(size, sample_rate)
    powers = []

    def add(segment: Tensor, hops: int) -> None:
        weighted = torch.fft.irfft(torch.fft.rfft(segment, size) * response, size)
        new = weighted[:, size - valid : size - valid + hops * hop].unflatten(-1, (hops, hop))
        powers.append(new.square().mean(dim=-1).double().sum(dim=0))

    pending: Tensor | None = None
    for block in blocks:
        block = block.to("cpu", torch.float32)
        pending = torch.cat([block.new_zeros(len(block), size - valid) if pending is None else pending, block], dim=-1)
        while pending.shape[-1] >= size:
            add(pending[:, :size], valid // hop)
            pending = pending[:, valid:]
    rest = 0 if pending is None else (pending.shape[-1] - (size - valid)) // hop
    if pending is not None and rest:
        add(pending, rest)
    return torch.cat(powers) if powers else torch.zeros(0, dtype=torch.float64)


def windowed(powers: Tensor, hops: int) -> Tensor:
    """Return the mean power of each window of `hops`, one per 100 ms."""
    return powers.unfold(0, hops, 1).mean(dim=-1) if len(powers) >= hops else powers[:0]


def gated(powers: Tensor, relative_gate: float = RELATIVE_GATE) -> float:
    """Return the integrated loudness of gating blocks in LUFS, −inf if all are silent or there are none."""
    passed = _above_gates(powers, relative_gate)
    return decibels(float(passed.mean())) + OFFSET if len(passed) else -math.inf


def decibels(power: float) -> float:
    """Return a power in dB, −inf for 0."""
    return 10 * math.log10(power) if power > 0 else -math.inf


def _range(powers: Tensor) -> float:
    passed = _above_gates(powers, RANGE_GATE)
    if not len(passed):
        return 0.0
    low, high = torch.quantile(passed, torch.tensor([0.1, 0.95], dtype=passed.dtype)).tolist()
    return decibels(high) - decibels(low)


def _above_gates(powers: Tensor, relative_gate: float) -> Tensor:
    passed = powers[powers > 10 ** ((ABSOLUTE_GATE - OFFSET) / 10)]
    return passed[passed > passed.mean() * 10 ** (relative_gate / 10)] if len(passed) else passed


def _k_weighting(size: int, sample_rate: int) -> Tensor:
    """Return the frequency response of both K-weighting filters at the bins of an FFT of `size` samples.

    The standard gives coefficients for 48 kHz. These analog parameters give the same ones, and those of other rates.
    """
    gain, frequency, quality = 10 ** (3.999843853973347 / 20), 1681.974450955533, 0.7071752369554196
    k, bandwidth = math.tan(math.pi * frequency / sample_rate), gain**0.4996667741545416
    shelf = (
        (gain + bandwidth * k / quality + k * k, 2 * (k * k - gain), gain - bandwidth * k / quality + k * k),
        (1 + k / quality + k * k, 2 * (k * k - 1), 1 - k / quality + k * k),
    )
    frequency, quality = 38.13547087602444, 0.5003270373238773
    k = math.tan(math.pi * frequency / sample_rate)
    scale = 1 + k / quality + k * k
    # As in the standard, the numerator is not scaled.
    high_pass = ((scale, -2 * scale, scale), (scale, 2 * (k * k - 1), 1 - k / quality + k * k))
    delay = torch.exp(-2j * math.pi * torch.arange(size // 2 + 1, dtype=torch.float64) / size)
    response = torch.ones_like(delay)
    for numerator, denominator in (shelf, high_pass):
        response = response * _polynomial(numerator, delay) / _polynomial(denominator, delay)
    return response.to(torch.complex64)


def _polynomial(coefficients: Iterable[float], x: Tensor) -> Tensor:
    return sum((c * x**power for power, c in enumerate(coefficients)), torch.zeros_like(x))
