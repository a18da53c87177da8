"""Songs for the page, which web/js/waveform.js draws and plays."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
import torch

from ...acestep_core.audio import write_audio
from ...acestep_core.audio.level import extremes

if TYPE_CHECKING:
    from ...acestep_core.edit.regions import OpenRegions
    from ...acestep_core.lyrics.times import LyricTimes

FOLDER = "acestep"  # in ComfyUI's temporary folder
VIEW_PARTS = 1200  # of a song that a waveform shows


def waveform_view(waveform: torch.Tensor | None, seconds: float, times: LyricTimes | None = None) -> dict[str, Any]:
    """Return the peaks of `[channels, samples]` in percent, and the times of its sections and lines.

    waveform: None for latents, which have no peaks.
    """
    low, high = ([], []) if waveform is None else percents(waveform, VIEW_PARTS)
    sections, lines = ((), ()) if times is None else (times.sections, times.lines)
    return {
        "seconds": seconds,
        "low": low,
        "high": high,
        "sections": [[section.start, section.label] for section in sections],
        "lines": [[round(line.start, 2), round(line.end, 2), line.text] for line in lines if not line.is_missing],
    }


def source_view(
    song: torch.Tensor | None,
    sample_rate: int,
    seconds: float,
    times: LyricTimes | None = None,
    regions: OpenRegions = (),
    where: str = "",
) -> dict[str, Any]:
    """Return the view of a source `[channels, samples]` on which ranges are drawn.

    regions: those of the run. where: the text that they come from, if it names them.
    """
    return {
        **waveform_view(song, seconds, times),
        "regions": [list(region) for region in regions],
        "where": where.strip(),
        "file": None if song is None else temporary_file(song, sample_rate),
    }


def percents(waveform: torch.Tensor, parts: int) -> tuple[list[int], list[int]]:
    """Return the lowest and the highest sample of each part in percent."""
    low, high = extremes(waveform, parts)
    return [round(100 * value) for value in low], [round(100 * value) for value in high]


def temporary_file(waveform: torch.Tensor, sample_rate: int) -> dict[str, str]:
    """Write `[channels, samples]` to ComfyUI's temporary folder, and return the file's place for the page.

    Equal audio has the same file, so that the page does not load it again.
    """
    content = hashlib.sha256(waveform.cpu().contiguous().numpy().data)
    content.update(str(sample_rate).encode())
    name = f"song_{content.hexdigest()[:24]}.flac"
    path = Path(folder_paths.get_temp_directory(), FOLDER, name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, waveform, sample_rate)
    return {"filename": name, "subfolder": FOLDER, "type": "temp"}
