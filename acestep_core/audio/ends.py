"""The beginning and the end of a song: silence, fades, and the place where the music ends."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SILENCE = 10 ** (-60 / 20)  # −60 dBFS
HEAD, TAIL = 0.02, 0.5  # seconds of silence that a trimmed song keeps
HOP = 0.05  # seconds per level of `find_ending`
AFTER_END = -35.0  # dB below the loud parts: the music has ended, only reverberation is left
DIP = -9.0  # dB below the loud parts: a pause between two phrases
QUIET_FOR = 0.7  # seconds; a rest within the music is shorter


def sounding_part(waveform: Tensor, sample_rate: int) -> tuple[int, int]:
    """Return the first and last sample to keep of `[channels, samples]`, without the silence at both ends.

    A short silence stays at both ends. A silent waveform is kept whole.
    """
    length, size = waveform.shape[-1], max(1, sample_rate // 100)
    peaks = torch.cat([part.abs().amax().reshape(1) for part in waveform.split(size, dim=-1)])
    loud = (peaks > SILENCE).nonzero().flatten()
    if not len(loud):
        return 0, length
    first, last = int(loud[0]) * size, (int(loud[-1]) + 1) * size
    return max(0, first - round(HEAD * sample_rate)), min(length, last + round(TAIL * sample_rate))


def find_ending(waveform: Tensor, sample_rate: int, seconds: float) -> tuple[int, bool]:
    """Return the sample at which `[channels, samples]` should end, and True if the music ends there.

    seconds: the last part, in which to search. If the music does not end there, the result is its quietest pause, or
    the last sample if there is no pause.
    """
    length, size = waveform.shape[-1], max(1, round(HOP * sample_rate))
    levels = _levels(waveform, size)
    if len(levels) < 4:
        return length, False
    relative = levels - torch.quantile(levels, 0.9)
    first = max(1, math.ceil((length - seconds * sample_rate) / size))
    quiet = relative < AFTER_END
    needed = round(QUIET_FOR / HOP)
    # The end of the file is silent, so a quiet part that reaches it may be shorter.
    padded = torch.cat([quiet, quiet.new_ones(needed)])
    ended = padded.unfold(0, needed, 1).all(dim=-1)[: len(levels)]
    found = (ended[first:]).nonzero().flatten()
    if len(found):
        return min(length, (first + int(found[0])) * size + round(TAIL * sample_rate)), True
    dips = torch.nn.functional.avg_pool1d(relative[None, None], 3, 1, 1, count_include_pad=False).flatten()
    place = first + int(dips[first:].argmin()) if first < len(dips) else len(dips) - 1
    return (min(length, (place + 1) * size), False) if dips[place] < DIP else (length, False)


def fade_in(waveform: Tensor, samples: int) -> None:
    """Fade the first samples of `[channels, samples]` in, in place, with equal power: the sine of a quarter turn."""
    samples = min(samples, waveform.shape[-1])
    waveform[:, :samples] *= _quarter_sine(samples)


def fade_out(waveform: Tensor, samples: int) -> None:
    """Fade the last samples of `[channels, samples]` out to 0, in place, with equal power."""
    samples = min(samples, waveform.shape[-1])
    waveform[:, waveform.shape[-1] - samples :] *= _quarter_sine(samples).flip(0)


def _quarter_sine(samples: int) -> Tensor:
    return torch.sin(torch.arange(samples, dtype=torch.float64) * (math.pi / 2 / max(samples, 1))).float()


def _levels(waveform: Tensor, size: int) -> Tensor:
    """Return the level of each `size` samples in dB, at least −120."""
    whole = waveform[:, : waveform.shape[-1] // size * size]
    pieces = whole.split(100 * size, dim=-1) if whole.shape[-1] else []
    powers = [piece.square().mean(dim=0).unflatten(0, (-1, size)).mean(dim=-1) for piece in pieces]
    return 10 * torch.cat([torch.zeros(0), *powers]).clamp(min=1e-12).log10()
