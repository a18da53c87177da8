"""Write spectrogram PNGs and WAV files with the standard library."""

from __future__ import annotations

import struct
import wave as wav
import zlib
from pathlib import Path

import numpy as np

from .analysis import log_mel

# Dark blue to yellow, linearly interpolated.
COLOURS = np.array([(8, 8, 40), (70, 20, 110), (180, 50, 90), (245, 140, 40), (255, 250, 180)], float)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write pixels `[height, width, 3]` uint8."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + pixels[y].tobytes() for y in range(height))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    Path(path).write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    )


def colour_map(values: np.ndarray, low: float = -5.0, high: float = 4.0) -> np.ndarray:
    """Map a mel spectrogram `[frames, bands]` to pixels `[2 * bands, frames, 3]`, low bands at the bottom."""
    scaled = np.clip((values.T[::-1] - low) / (high - low), 0, 1) * (len(COLOURS) - 1)
    index = np.minimum(scaled.astype(int), len(COLOURS) - 2)
    part = (scaled - index)[..., None]
    return np.repeat((COLOURS[index] * (1 - part) + COLOURS[index + 1] * part).astype(np.uint8), 2, axis=0)


def write_spectrograms(path: Path, waves: list[np.ndarray]) -> None:
    """Write the log-mel spectrograms of `[2, samples]` waves as one picture, from top to bottom."""
    pictures = [colour_map(log_mel(wave, hop=960)) for wave in waves]
    width = min(p.shape[1] for p in pictures)
    gap = np.full((4, width, 3), 255, np.uint8)
    stacked = [part for p in pictures for part in (p[:, :width], gap)]
    write_png(path, np.concatenate(stacked[:-1]))


def write_wav(path: Path, wave: np.ndarray, rate: int = 48_000) -> None:
    """Write `wave` `[channels, samples]` in 16 bits."""
    with wav.open(str(path), "wb") as file:
        file.setnchannels(wave.shape[0])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.clip(wave.T, -1, 1) * 32767).astype("<i2").tobytes())
