"""AUDIO of ComfyUI, and the songs in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy_execution.graph_utils import ExecutionBlocker

from ...acestep_core.audio import dropped_channels, is_finite
from ...acestep_core.audio.level import check_rate
from ...acestep_core.errors import RequestError, shown
from .progress import show_notes


def songs_of(audio: Any, name: str = "audio") -> tuple[list[torch.Tensor], int]:
    """Return the songs `[channels, samples]` of an AUDIO, with one or two channels, and their sample rate in Hz.

    Show a note if channels are left out. Raises RequestError that starts with the input's name.
    """
    try:
        waveform, rate = audio["waveform"], audio["sample_rate"]
    except (TypeError, KeyError, AttributeError):
        raise RequestError(f"{name}: must be AUDIO, got {shown(audio)}. Its file may have no sound.") from None
    if not isinstance(waveform, torch.Tensor) or waveform.ndim != 3 or not waveform.numel():
        given = list(waveform.shape) if isinstance(waveform, torch.Tensor) else type(waveform).__name__
        raise RequestError(f"{name}: must have samples [batch, channels, samples], got {given}.")
    try:
        check_rate(rate)
    except RequestError as error:
        raise RequestError(f"{name}: {error}.") from None
    if not is_finite(waveform):
        raise RequestError(f"{name}: contains NaN or infinite samples; all must be finite.")
    show_notes(*dropped_channels(waveform))
    return list(waveform[:, :2].detach().to("cpu", torch.float32)), int(rate)


def audio_of(waveforms: Sequence[torch.Tensor], sample_rate: int) -> dict[str, Any]:
    """Return an AUDIO of songs `[channels, samples]`. A batch has one length: silence follows the shorter songs."""
    length = max(waveform.shape[-1] for waveform in waveforms)
    padded = [torch.nn.functional.pad(waveform, (0, length - waveform.shape[-1])) for waveform in waveforms]
    return {"waveform": torch.stack(padded), "sample_rate": sample_rate}


def missing_audio(reason: str) -> ExecutionBlocker:
    """Return an output that ends the run with a reason if another node takes it, and else has no effect."""
    return ExecutionBlocker(reason)
