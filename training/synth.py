"""Render a composed piece to 48 kHz stereo float32: deterministic, some 50 times faster than real time."""

from __future__ import annotations

import numpy as np

from .instruments import INSTRUMENTS, RATE, drum_kit, sing
from .piece import Note, Piece
from .styles import DRUMS

F32 = np.float32
PARTS = ("drums", "bass", "chords", "pad", "melody", "voice")
GAIN = {"drums": 0.50, "bass": 0.24, "chords": 0.12, "pad": 0.07, "melody": 0.20, "voice": 0.45}
SEND = {"drums": 0.0, "bass": 0.0, "chords": 0.06, "pad": 0.1, "melody": 0.08, "voice": 0.1}  # into the reverb
PAN = {"drums": 0.0, "bass": 0.0, "chords": -0.2, "pad": 0.2, "melody": 0.1, "voice": 0.0}
DRUM_PAN = {"hat": 0.3, "open_hat": 0.3, "shaker": -0.4, "ride": -0.3, "rim": -0.2, "crash": 0.4, "tom": -0.25}
LOUDNESS = 0.13  # rms of a finished piece
PEAK = 0.95


def render(piece: Piece, parts: tuple[str, ...] = PARTS) -> np.ndarray:
    """Render `piece` to `[2, samples]`, exactly `piece.seconds` long. `parts` selects stems, levelled as one mix."""
    length = piece.seconds * RATE
    dry = np.zeros((2, length), F32)
    wet = np.zeros(length, F32)
    for part in parts:
        left_right, mono = _part(piece, part, length)
        dry += left_right
        wet += F32(SEND[part]) * mono
    if wet.any():
        dry += _reverb(wet, piece.seed)
    return _level(dry)


def _part(piece: Piece, part: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the stereo and the mono sum of one part. Equal notes are synthesised once."""
    stereo = np.zeros((2, length), F32)
    notes: dict[tuple, np.ndarray] = {}
    kit = drum_kit() if part == "drums" and part in piece.instruments else {}
    jitter = np.random.default_rng([piece.seed, PARTS.index(part)])
    for note in piece.notes:
        if note.part != part:
            continue
        wave = kit[DRUMS[note.pitch]] if part == "drums" else _note(piece, note, notes)
        pan = DRUM_PAN.get(DRUMS[note.pitch], 0.0) if part == "drums" else PAN[part]
        if part == "chords":
            pan += 0.25 * ((note.pitch % 3) - 1)
        start = int((note.start + 0.004 * jitter.random()) * RATE)
        wave = wave[: max(length - start, 0)]
        gain = GAIN[part] * (0.25 + 0.75 * note.velocity**1.5)
        angle = (pan + 1) * np.pi / 4
        stereo[0, start : start + len(wave)] += F32(gain * np.cos(angle)) * wave
        stereo[1, start : start + len(wave)] += F32(gain * np.sin(angle)) * wave
    return stereo, stereo.mean(0)


def _note(piece: Piece, note: Note, notes: dict[tuple, np.ndarray]) -> np.ndarray:
    instrument = piece.instruments[note.part]
    held = max(round(note.seconds * 50) / 50, 0.04)
    key = (note.pitch, held, note.vowel, note.consonant)
    if key not in notes:
        frequency = 440 * 2 ** ((note.pitch - 69) / 12)
        if instrument == "voice":
            notes[key] = sing(frequency, held, note.vowel, note.consonant)
        else:
            notes[key] = INSTRUMENTS[instrument](frequency, held)
    return notes[key]


def _reverb(mono: np.ndarray, seed: int, seconds: float = 1.2) -> np.ndarray:
    """Convolve with decaying noise, different for each channel."""
    n = int(seconds * RATE)
    rng = np.random.default_rng(seed)
    t = np.arange(n) / RATE
    tail = rng.standard_normal((2, n)) * np.exp(-t / rng.uniform(0.15, 0.35)) * np.minimum(t / 0.02, 1)
    tail /= np.sqrt((tail**2).sum(1, keepdims=True))
    size = 1 << (len(mono) + n - 1).bit_length()
    while size * 3 // 4 >= len(mono) + n and (size * 3 // 4) % 2 == 0:
        size = size * 3 // 4
    spectrum = np.fft.rfft(mono.astype(F32), size)[None] * np.fft.rfft(tail.astype(F32), size)
    wet = np.fft.irfft(spectrum, size)[:, : len(mono)]
    return wet.astype(F32)


def _level(wave: np.ndarray) -> np.ndarray:
    """Normalise the loudness, soften peaks below 1, and fade out the last 10 ms."""
    wave = wave * F32(LOUDNESS / max(float(np.sqrt(np.mean(wave**2))), 1e-6))
    over = np.abs(wave)
    knee = F32(0.6)
    if over.max() > knee:
        softened = knee + (PEAK - knee) * np.tanh((over - knee) / (PEAK - knee))
        wave = np.where(over > knee, np.sign(wave) * softened, wave)
    fade = np.linspace(1, 0, RATE // 100, dtype=F32)
    wave[:, -len(fade) :] *= fade
    return np.ascontiguousarray(wave, F32)
