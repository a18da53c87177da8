"""Channels, peaks and validity of waveforms `[batch, channels, samples]`, float32, −1…1."""

from __future__ import annotations

import torch

from ..errors import RequestError

TARGET_PEAK = 10 ** (-1 / 20)  # −1 dBFS = 0.8912509
SILENCE_PEAK = 1e-4  # −80 dBFS
MIN_RATE, MAX_RATE = 4_000, 384_000  # Hz


def check_waveform(waveform: torch.Tensor, sample_rate: float) -> None:
    """Raise RequestError if the VAE cannot encode this audio.

    Reasons: a wrong shape, no samples, NaN or infinity, silence, an invalid sample rate (in Hz).
    """
    if not isinstance(waveform, torch.Tensor):
        raise RequestError(f"audio must be a tensor [batch, channels, samples], got {type(waveform).__name__}")
    if waveform.ndim != 3 or waveform.shape[1] == 0:
        raise RequestError(f"audio must be [batch, channels, samples], got a tensor of shape {list(waveform.shape)}")
    if waveform.shape[0] == 0 or waveform.shape[2] == 0:
        raise RequestError("audio is empty: it has no samples")
    check_rate(sample_rate)
    if not is_finite(waveform):
        raise RequestError("audio contains NaN or infinite samples; all must be finite")
    silent = (_peak(to_stereo(waveform)).flatten() < SILENCE_PEAK).nonzero().flatten().tolist()
    if silent:
        item = "audio" if len(waveform) == 1 else f"audio: item {silent[0]} of the batch"
        raise RequestError("; ".join([f"{item} is silent: its peak is below −80 dBFS", *dropped_channels(waveform)]))


def check_rate(sample_rate: float) -> None:
    """Raise RequestError for a sample rate in Hz that no recording has. Resampling needs memory in proportion."""
    if not isinstance(sample_rate, (int, float)) or not MIN_RATE <= sample_rate <= MAX_RATE:  # NaN is not
        raise RequestError(f"sample rate must be from {MIN_RATE} to {MAX_RATE} Hz, got {sample_rate!r}")


def dropped_channels(waveform: torch.Tensor) -> list[str]:
    """Return a warning for the user if `to_stereo` drops channels, else an empty list."""
    if waveform.ndim != 3 or waveform.shape[1] <= 2:
        return []
    return [f"audio: only the first 2 of {waveform.shape[1]} channels are used; mix all down to stereo to keep them"]


def to_stereo(waveform: torch.Tensor) -> torch.Tensor:
    """Return two channels: duplicate a mono channel, drop every channel after the second."""
    if waveform.shape[1] == 1:
        return waveform.expand(-1, 2, -1)
    return waveform[:, :2]


def is_finite(values: torch.Tensor) -> bool:
    """Return True if no value is NaN or infinite."""
    # The extremes are NaN or infinite if any value is; isfinite(values) would allocate a quarter of a copy.
    return bool(torch.isfinite(torch.stack(torch.aminmax(values))).all())


def anti_clip(waveform: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Scale each item whose peak is above 1 down to a peak of 1. `out` may be `waveform`."""
    return torch.div(waveform, _peak(waveform).clamp(min=1), out=out)


def normalize_peak(
    waveform: torch.Tensor, target: float = TARGET_PEAK, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Scale each item to the target peak, −1 dBFS by default. Silence stays silent. `out` may be `waveform`."""
    return torch.mul(waveform, target / _peak(waveform).clamp(min=1e-6), out=out)


def extremes(waveform: torch.Tensor, parts: int) -> tuple[list[float], list[float]]:
    """Return the lowest and the highest sample of each of so many equal parts of `[channels, samples]`."""
    parts = min(parts, waveform.shape[-1])
    pool = torch.nn.functional.adaptive_max_pool1d
    low, high = -pool(-waveform.amin(dim=0, keepdim=True), parts), pool(waveform.amax(dim=0, keepdim=True), parts)
    return low.flatten().tolist(), high.flatten().tolist()


def _peak(waveform: torch.Tensor) -> torch.Tensor:
    # abs() would copy minutes of audio.
    low, high = waveform.amin(dim=(1, 2), keepdim=True), waveform.amax(dim=(1, 2), keepdim=True)
    return torch.maximum(high, -low)
