"""Takes for the page: files to play, peaks to draw, and gains that match their loudness."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch

from ...acestep_core.audio import measure_loudness, write_audio
from ...acestep_core.audio.level import extremes

FOLDER = "acestep"  # in ComfyUI's temporary folder
PARTS = 800  # of a waveform


def takes_gains(takes: Sequence[tuple[torch.Tensor, int]]) -> list[float]:
    """Return the gain in dB that makes each take as loud as the quietest, 0 for a silent one."""
    levels = [measure_loudness(waveform, rate).integrated for waveform, rate in takes]
    quietest = min((level for level in levels if level > -math.inf), default=0.0)
    return [quietest - level if level > -math.inf else 0.0 for level in levels]


def shown_take(waveform: torch.Tensor, sample_rate: int, gain: float) -> dict[str, Any]:
    """Write a take to ComfyUI's temporary folder, and return what the page draws and plays.

    Equal takes have the same file, so that the page does not load a take again.
    """
    content = waveform.contiguous().numpy().tobytes()
    name = f"take_{hashlib.sha256(content + str(sample_rate).encode()).hexdigest()[:24]}.flac"
    path = Path(folder_paths.get_temp_directory(), FOLDER, name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, waveform, sample_rate)
    low, high = ([round(100 * value) for value in values] for values in extremes(waveform, PARTS))
    file = {"filename": name, "subfolder": FOLDER, "type": "temp"}
    return {**file, "seconds": waveform.shape[-1] / sample_rate, "gain": round(gain, 2), "low": low, "high": high}
