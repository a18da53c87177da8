"""Channels, loudness and sanity of waveforms `[batch, channels, samples]`, float32, −1…1."""

from __future__ import annotations

import math

import torch

from ..errors import RequestError

TARGET_PEAK = 10 ** (-1 / 20)  # −1 dBFS = 0.8912509
SILENCE_PEAK = 1e-4  # −80 dBFS


def check_waveform(waveform: torch.Tensor, sample_rate: float) -> None:
    """Refuses what cannot be encoded: a wrong shape, no samples, NaN or infinity, silence, a nonsense rate."""
    if waveform.ndim != 3 or waveform.shape[1] == 0:
        raise RequestError(f"audio must be [batch, channels, samples], got a tensor of shape {list(waveform.shape)}")
    if waveform.shape[0] == 0 or waveform.shape[2] == 0:
        raise RequestError("the audio is empty: it has no samples")
    if not isinstance(sample_rate, (int, float)) or not math.isfinite(sample_rate) or sample_rate <= 0:
        raise RequestError(f"the sample rate must be a positive number of Hz, got {sample_rate!r}")
    if not is_finite(waveform):
        raise RequestError("the audio contains NaN or infinite samples")
    silent = is_silent(to_stereo(waveform)).nonzero().flatten().tolist()
    if silent:
        which = "the audio" if len(waveform) == 1 else f"item {silent[0]} of the audio batch"
        raise RequestError("; ".join([f"{which} is silent: its peak is below −80 dBFS", *dropped_channels(waveform)]))


def dropped_channels(waveform: torch.Tensor) -> list[str]:
    """A sentence for the user where `to_stereo` leaves channels out."""
    if waveform.ndim != 3 or waveform.shape[1] <= 2:
        return []
    return [f"of the {waveform.shape[1]} channels the first two are heard: mix them down to stereo to hear the others"]


def is_silent(waveform: torch.Tensor) -> torch.Tensor:
    """Per item `[batch]`, whether the peak is below −80 dBFS."""
    return _peak(waveform).flatten() < SILENCE_PEAK


def to_stereo(waveform: torch.Tensor) -> torch.Tensor:
    """Two channels: mono is doubled; of more than two channels the first two stay."""
    if waveform.shape[1] == 1:
        return waveform.expand(-1, 2, -1)
    return waveform[:, :2]


def is_finite(values: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite: by the extremes, which are either where one is."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(values))).all())  # isfinite(values) is a quarter of a copy


def anti_clip(waveform: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Scales each item whose peak is above 1 down to 1; leaves the others as they are. `out` may be `waveform`."""
    return torch.div(waveform, _peak(waveform).clamp(min=1), out=out)


def normalize_peak(
    waveform: torch.Tensor, target: float = TARGET_PEAK, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Scales each item to the target peak, −1 dBFS by default. Silence stays silence. `out` may be `waveform`."""
    return torch.mul(waveform, target / _peak(waveform).clamp(min=1e-6), out=out)


def _peak(waveform: torch.Tensor) -> torch.Tensor:
    low, high = waveform.amin(dim=(1, 2), keepdim=True), waveform.amax(dim=(1, 2), keepdim=True)
    return torch.maximum(high, -low)  # without a copy of minutes of audio, as abs() would make
