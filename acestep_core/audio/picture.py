"""A song as a picture: its waveform or its spectrogram. The left edge is the beginning, the right edge the end."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RequestError, shown
from ..files import atomic_write
from .level import check_rate, is_finite

KINDS = ("waveform", "spectrogram")
SMALLEST, LARGEST = 16, 8192  # pixels
BACKGROUND, PEAKS, BODY = (0.07, 0.07, 0.1), (0.45, 0.3, 0.7), (0.75, 0.55, 0.98)
WINDOW_SECONDS = 0.045  # of a spectrum
LOWEST, HIGHEST = 40.0, 16_000.0  # Hz
QUIETEST, LOUDEST = -95.0, -15.0  # dB of a band; 0 is a sine at full scale
COLOURS = ((8, 6, 18), (60, 15, 110), (150, 45, 125), (232, 85, 90), (253, 170, 105), (252, 250, 200))  # of levels
CHUNK = 2**22  # samples of the spectra that are computed at once


def draw_song(
    waveform: Tensor, sample_rate: int, kind: str = "waveform", width: int = 1024, height: int = 256
) -> Tensor:
    """Draw `[channels, samples]`, −1…1. Returns `[height, width, 3]`, float32, 0…1.

    kind: waveform shows the peaks, and brighter the root mean square. spectrogram shows 40 Hz to 16 kHz on the mel
        scale, the highest frequencies at the top.

    Raises RequestError.
    """
    if kind not in KINDS:
        raise RequestError(f"kind: must be {' or '.join(KINDS)}, got {shown(kind)}")
    for name, pixels in (("width", width), ("height", height)):
        if not isinstance(pixels, int) or not SMALLEST <= pixels <= LARGEST:
            raise RequestError(f"{name}: must be from {SMALLEST} to {LARGEST} pixels, got {shown(pixels)}")
    check_rate(sample_rate)
    if not isinstance(waveform, Tensor) or waveform.ndim != 2 or not waveform.numel():
        given = list(waveform.shape) if isinstance(waveform, Tensor) else type(waveform).__name__
        raise RequestError(f"waveform must be a tensor [channels, samples] with samples, got {given}")
    waveform = waveform.detach().to("cpu", torch.float32)
    if not is_finite(waveform):
        raise RequestError("waveform contains NaN or infinite samples; all must be finite")
    return (
        _draw_waveform(waveform, width, height)
        if kind == "waveform"
        else _draw_spectrogram(waveform.mean(0), sample_rate, width, height)
    )


def write_png(path: str | Path, picture: Tensor) -> None:
    """Write `[height, width, 3]`, 0…1, as a PNG file. Raises RequestError if the file cannot be written."""
    height, width, _ = picture.shape
    pixels = (255 * picture.clamp(0, 1)).round().to(torch.uint8)
    rows = F.pad(pixels.flatten(1), (1, 0)).numpy().tobytes()  # each row starts with the number of its filter

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    try:
        with atomic_write(Path(path)) as file:
            file.write(b"\x89PNG\r\n\x1a\n" + data)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error


def _draw_waveform(waveform: Tensor, width: int, height: int) -> Tensor:
    samples = waveform.shape[-1]
    if samples < width:
        waveform = F.interpolate(waveform[None], width, mode="nearest")[0]
    pool = F.adaptive_max_pool1d
    low, high = -pool(-waveform.amin(0, keepdim=True), width)[0], pool(waveform.amax(0, keepdim=True), width)[0]
    body = F.adaptive_avg_pool1d(waveform.square().mean(0, keepdim=True), width)[0].sqrt()
    picture = torch.tensor(BACKGROUND).expand(height, width, 3)
    for bottom, top, colour in ((low, high, PEAKS), (-body, body, BODY)):
        share = _covered(bottom, top, height)[..., None]
        picture = torch.lerp(picture, torch.tensor(colour), share)
    return picture.contiguous()


def _covered(low: Tensor, high: Tensor, height: int) -> Tensor:
    """Return the share of each pixel between `low` and `high` of its column, `[height, columns]`, at least a line."""
    edges = torch.linspace(1, -1, height + 1)[:, None]
    pixel = 2 / height
    middle, half = (low + high) / 2, ((high - low) / 2).clamp(min=pixel / 2)
    top, bottom = (middle + half).clamp(max=1), (middle - half).clamp(min=-1)
    return ((torch.minimum(edges[:-1], top) - torch.maximum(edges[1:], bottom)) / pixel).clamp(0, 1)


def _draw_spectrogram(mono: Tensor, sample_rate: int, width: int, height: int) -> Tensor:
    size = 2 ** math.ceil(math.log2(WINDOW_SECONDS * sample_rate))
    window = torch.hann_window(size)
    window *= 2 / window.sum()
    filters = _mel_filters(size, sample_rate, height)
    spacing = mono.shape[-1] / width
    spectra = max(1, math.ceil(spacing / size))  # of a column
    padded = F.pad(mono, (size // 2, size))
    columns = []
    for first in range(0, width, max(1, CHUNK // (spectra * size))):
        last = min(width, first + max(1, CHUNK // (spectra * size)))
        places = (torch.arange(first * spectra, last * spectra) + 0.5) * spacing / spectra
        frames = padded[places.long()[:, None] + torch.arange(size)]
        powers = torch.fft.rfft(frames * window).abs().square().unflatten(0, (last - first, spectra)).mean(1)
        columns.append(filters @ powers.T)
    levels = (10 * torch.cat(columns, dim=1).clamp(min=1e-20).log10() - QUIETEST) / (LOUDEST - QUIETEST)
    return _coloured(levels.flip(0).clamp(0, 1))


def _mel_filters(size: int, sample_rate: int, rows: int) -> Tensor:
    """Return for each row the weights of the bins, `[rows, size // 2 + 1]`, the lowest frequency first.

    A filter is a triangle up to its neighbours, and at least up to the next bins.
    """
    low, high = (math.log1p(frequency / 700) for frequency in (LOWEST, min(HIGHEST, sample_rate / 2)))
    step = (high - low) / rows
    centres = low + step * (torch.arange(rows, dtype=torch.float64) + 0.5)
    frequencies, width = 700 * torch.expm1(centres), 700 * centres.exp() * step
    bins = torch.fft.rfftfreq(size, 1 / sample_rate, dtype=torch.float64)
    reach = width.clamp(min=sample_rate / size)
    return (1 - (bins - frequencies[:, None]).abs() / reach[:, None]).clamp(min=0).float()


def _coloured(levels: Tensor) -> Tensor:
    stops = torch.tensor(COLOURS, dtype=torch.float32) / 255
    places = levels * (len(stops) - 1)
    below = places.long().clamp(max=len(stops) - 2)
    return torch.lerp(stops[below], stops[below + 1], (places - below)[..., None])
