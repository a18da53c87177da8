"""Sample rate conversion with soxr at its very high quality setting."""

from __future__ import annotations

import torch

from ..config import SAMPLE_RATE


def resample(waveform: torch.Tensor, sample_rate: float, to: int = SAMPLE_RATE) -> torch.Tensor:
    """Convert `[batch, channels, samples]` to the rate `to` in Hz; the result is float32 on the CPU."""
    waveform = waveform.to("cpu", torch.float32)
    if sample_rate == to:
        return waveform
    import soxr

    items = [soxr.resample(item.T.contiguous().numpy(), sample_rate, to, quality="VHQ") for item in waveform]
    return torch.stack([torch.from_numpy(item).T for item in items]).contiguous()
