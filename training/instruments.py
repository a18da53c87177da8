"""Instruments. Each synthesises one mono note at full strength, 48 kHz float32, including its release.

Most are wavetables: one period of a sum of harmonics, cross-faded from a bright to a dark spectrum. This acts like a
decaying low-pass filter and costs two table look-ups a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RATE = 48_000
TABLE = 2048
F32 = np.float32


def seconds_axis(seconds: float) -> np.ndarray:
    """Return the time of each sample in seconds."""
    return np.arange(max(1, int(seconds * RATE)), dtype=F32) / F32(RATE)


def envelope(t: np.ndarray, held: float, attack: float, decay: float, sustain: float, release: float) -> np.ndarray:
    """Return a linear attack, an exponential decay to `sustain`, and a linear release after `held` seconds."""
    rise = np.minimum(t / F32(attack), 1)
    body = F32(sustain) + F32(1 - sustain) * np.exp(-np.maximum(t - attack, 0) / F32(decay))
    return rise * body * np.clip(1 - (t - held) / F32(release), 0, 1)


def table(amplitudes: np.ndarray) -> np.ndarray:
    """Return one period with these harmonic amplitudes and an rms of 1, plus one sample for interpolation."""
    spectrum = np.zeros(TABLE // 2 + 1, complex)
    phases = np.random.default_rng(len(amplitudes)).uniform(0, 2 * np.pi, len(amplitudes))
    spectrum[1 : len(amplitudes) + 1] = amplitudes * np.exp(1j * phases)
    wave = np.fft.irfft(spectrum)
    wave /= np.sqrt(np.mean(wave**2)) + 1e-9
    return np.append(wave, wave[0]).astype(F32)


def interpolate(wave: np.ndarray, cycles: np.ndarray) -> np.ndarray:
    """Interpolate `wave` at a phase in cycles (float64, which stays exact over a long note)."""
    position = (cycles % 1.0) * TABLE
    index = position.astype(np.int32)
    part = (position - index).astype(F32)
    return wave[index] * (1 - part) + wave[index + 1] * part


def harmonics(frequency: float, ceiling: float = 14_000, most: int = 60) -> np.ndarray:
    """Return the numbers of the harmonics up to `ceiling` Hz, at most `most`."""
    return np.arange(1, int(np.clip(ceiling / frequency, 1, most)) + 1)


def cycles(t: np.ndarray, frequency: float, vibrato: float = 0.0, rate: float = 5.2, delay: float = 0.25) -> np.ndarray:
    """Return the phase in cycles. `vibrato` is a depth in semitones, reached after `delay` seconds."""
    phase = t.astype(np.float64) * frequency
    if vibrato:
        depth = frequency * vibrato * 0.0595 * np.minimum(t / delay, 1) ** 2
        phase -= depth * np.cos(2 * np.pi * rate * t) / (2 * np.pi * rate)
    return phase


@dataclass(frozen=True)
class Wavetable:
    """A wavetable instrument. Its harmonics fall as 1/n**slope at first and as 1/n**dark_slope later."""

    slope: float
    dark_slope: float
    darken: float  # seconds
    attack: float = 0.004
    decay: float = 1.0
    sustain: float = 0.0
    release: float = 0.08
    even: float = 1.0  # strength of the even harmonics: 0 is a square wave, 1 a saw
    vibrato: float = 0.0
    detune: tuple[float, ...] = (0.0,)  # cents

    def note(self, frequency: float, held: float) -> np.ndarray:
        t = seconds_axis(held + self.release)
        n = harmonics(frequency)
        weights = np.where(n % 2 == 0, self.even, 1.0)
        bright, dark = table(weights / n**self.slope), table(weights / n**self.dark_slope)
        blend = np.exp(-t / F32(self.darken))
        out = np.zeros_like(t)
        for index, cents in enumerate(self.detune):
            phase = cycles(t, frequency * 2 ** (cents / 1200), self.vibrato) + 0.37 * index
            out += interpolate(bright, phase) * blend + interpolate(dark, phase) * (1 - blend)
        level = envelope(t, held, self.attack, self.decay, self.sustain, self.release)
        return out * level / F32(np.sqrt(len(self.detune)))


def plucked(frequency: float, held: float) -> np.ndarray:
    """Synthesise a plucked string: Karplus-Strong in closed form, with one filter power per period."""
    period = int(RATE / frequency)
    turns = int((held + 0.25) * frequency) + 2
    noise = np.random.default_rng(int(frequency * 16)).uniform(-1, 1, period)
    noise = (noise + np.roll(noise, 1)) / 2
    spectrum = np.fft.rfft(noise)
    angle = np.pi * np.arange(len(spectrum)) / period
    loss = (np.cos(angle) * 0.5 + 0.5) ** (120 / frequency + 0.3) * 0.5 ** (1 / (0.9 * frequency))
    string = np.fft.irfft(spectrum * loss ** np.arange(turns)[:, None], n=period, axis=1).astype(F32).ravel()
    t = seconds_axis(held + 0.2)
    at = np.minimum(np.arange(len(t)) * (period * frequency / RATE), len(string) - 2)
    index = at.astype(np.int64)
    part = (at - index).astype(F32)
    wave = string[index] * (1 - part) + string[index + 1] * part
    return (
        wave
        / (np.sqrt(np.mean(noise**2)).astype(F32) + F32(1e-9))
        * np.clip(1 - (t - held) / F32(0.2), 0, 1)
        * F32(1.2)
    )


def electric_piano(frequency: float, held: float) -> np.ndarray:
    """Synthesise an electric piano: two-operator FM with a mellow body and a short bell-like tine."""
    t = seconds_axis(held + 0.15)
    angle = (2 * np.pi * cycles(t, frequency)).astype(F32)
    body = np.sin(angle + 0.9 * np.exp(-t / F32(0.6)) * np.sin(angle))
    tine = (
        0.35
        * np.exp(-t / F32(0.12))
        * np.sin(angle + 1.5 * np.exp(-t / F32(0.1)) * np.sin(F32(14) * angle % F32(2 * np.pi)))
    )
    return (body + tine) * envelope(t, held, 0.004, 1.1, 0.0, 0.15) * F32(1.3)


def bells(frequency: float, held: float) -> np.ndarray:
    """Synthesise bells: the inharmonic partials of a bar. Higher ones decay faster."""
    t = seconds_axis(max(held, 0.9) + 0.6)
    out = np.zeros_like(t)
    for ratio, gain, life in ((1, 1, 0.9), (2.756, 0.45, 0.4), (5.404, 0.2, 0.15), (8.93, 0.08, 0.07)):
        if frequency * ratio < 16_000:
            out += F32(gain) * np.exp(-t / F32(life)) * np.sin((2 * np.pi * cycles(t, frequency * ratio)).astype(F32))
    return out * np.minimum(t / F32(0.002), 1) * np.clip((t[-1] - t) / F32(0.1), 0, 1) * F32(1.3)


def organ(frequency: float, held: float) -> np.ndarray:
    """Synthesise an organ: drawbars and a slow rotary tremolo."""
    t = seconds_axis(held + 0.06)
    bars = np.zeros(17)
    bars[[0, 1, 2, 3, 5, 7]] = (1.0, 0.8, 0.6, 0.35, 0.2, 0.25)
    wave = interpolate(table(bars[: len(harmonics(frequency, most=16))]), cycles(t, frequency, 0.08, 6.0))
    return wave * envelope(t, held, 0.01, 1, 1, 0.06) * (1 + F32(0.12) * np.sin(F32(2 * np.pi * 6) * t))


def flute(frequency: float, held: float) -> np.ndarray:
    """Synthesise a flute: four harmonics and breath noise."""
    t = seconds_axis(held + 0.1)
    tone = interpolate(table(np.array([1, 0.35, 0.12, 0.05])), cycles(t, frequency, 0.25))
    breath = np.random.default_rng(int(frequency)).standard_normal(len(t)).astype(F32)
    breath[1:] -= F32(0.6) * breath[:-1]
    level = envelope(t, held, 0.05, 1, 1, 0.1)
    return tone * level + breath * level * F32(0.025) * (1 + 4 * np.exp(-t / F32(0.05)))


FORMANTS = {  # Hz, the first three, further apart than in speech
    "a": (850, 1250, 2900),
    "e": (500, 1900, 2600),
    "i": (280, 2500, 3400),
    "o": (450, 750, 2400),
    "u": (280, 600, 900),
}
CONSONANTS = {"s": (0.08, 0.8, 4_000, 12_000), "t": (0.05, 1.0, 800, 5_000)}  # seconds, level, range of the noise in Hz


def sing(frequency: float, held: float, vowel: str = "a", consonant: str = "") -> np.ndarray:
    """Synthesise a voice: a glottal slope shaped by the vowel's formants, with vibrato, after the consonant's noise."""
    t = seconds_axis(held + 0.08)
    n = harmonics(frequency, 8_000)
    formants = sum(
        gain / (1 + ((n * frequency - centre) / 90) ** 2)
        for centre, gain in zip(FORMANTS[vowel or "a"], (1.0, 1.0, 0.6), strict=True)
    )
    wave = interpolate(table((formants + 0.003) / n**0.5), cycles(t, frequency, 0.45, 5.5))
    wave *= envelope(t, held, 0.03, 0.6, 0.75, 0.08)
    if consonant:
        seconds, level, low, high = CONSONANTS[consonant]
        noise = F32(level) * _noise(seconds, 9, low, high)[: len(t)]
        wave *= np.clip(t / F32(seconds) - F32(0.5), 0, 1)
        wave[: len(noise)] += noise * np.linspace(1, 0, len(noise), dtype=F32)
    return wave


WAVETABLES = {
    "piano": Wavetable(1.1, 2.2, 0.5, decay=1.4, release=0.15, detune=(-1.5, 1.5)),
    "pad": Wavetable(1.9, 1.5, 1.5, attack=0.35, decay=1, sustain=1, release=0.5, detune=(-9, 0, 8)),
    "lead": Wavetable(1.0, 1.4, 0.4, attack=0.01, decay=0.8, sustain=0.7, release=0.08, vibrato=0.3, detune=(-6, 6)),
    "bass": Wavetable(1.2, 2.6, 0.25, decay=0.9, sustain=0.25, release=0.06),
    "synth bass": Wavetable(0.8, 2.0, 0.12, decay=0.5, sustain=0.5, release=0.05, even=0.4),
    "strings": Wavetable(1.15, 1.35, 1.0, attack=0.12, decay=1, sustain=0.9, release=0.25, vibrato=0.2, detune=(-5, 4)),
    "pulse": Wavetable(1.0, 1.0, 1.0, attack=0.002, decay=0.4, sustain=0.6, release=0.02, even=0.0),
    "brass": Wavetable(1.9, 0.95, 0.09, attack=0.035, decay=0.6, sustain=0.8, release=0.07, vibrato=0.12),
}

INSTRUMENTS: dict[str, Callable[[float, float], np.ndarray]] = {
    **{name: wavetable.note for name, wavetable in WAVETABLES.items()},
    "guitar": plucked,
    "electric piano": electric_piano,
    "bells": bells,
    "organ": organ,
    "flute": flute,
}


# --- drums ------------------------------------------------------------------------------------------------------------


def _noise(seconds: float, seed: int, low: float, high: float) -> np.ndarray:
    """Return noise between two frequencies, with an rms of 1."""
    n = int(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    f = np.fft.rfftfreq(n, 1 / RATE)
    spectrum *= 1 / (1 + (low / np.maximum(f, 1)) ** 4) / (1 + (f / high) ** 4)
    wave = np.fft.irfft(spectrum, n)
    return (wave / np.sqrt(np.mean(wave**2))).astype(F32)


def _drop(seconds: float, start: float, end: float, fall: float, life: float) -> np.ndarray:
    """Return a decaying sine that falls from `start` to `end` Hz."""
    t = seconds_axis(seconds)
    phase = end * t + (start - end) * fall * (1 - np.exp(-t / F32(fall)))
    return (
        np.sin((2 * np.pi * phase).astype(F32))
        * np.exp(-t / F32(life))
        * np.clip((seconds - t) / 0.02, 0, 1).astype(F32)
    )


def drum_kit() -> dict[str, np.ndarray]:
    """Synthesise all drums of the kit, by name."""

    def hiss(seconds: float, life: float, low: float, high: float, seed: int) -> np.ndarray:
        t = seconds_axis(seconds)
        return (
            _noise(seconds, seed, low, high) * np.exp(-t / F32(life)) * np.clip((seconds - t) / 0.01, 0, 1).astype(F32)
        )

    snare = 0.6 * _drop(0.22, 260, 180, 0.03, 0.07) + 0.6 * hiss(0.22, 0.07, 1200, 9000, 1)
    return {
        "kick": 1.6 * _drop(0.35, 190, 48, 0.035, 0.13),
        "snare": snare,
        "hat": 0.35 * hiss(0.08, 0.02, 7000, 15000, 2),
        "open_hat": 0.3 * hiss(0.35, 0.12, 6500, 15000, 3),
        "rim": 0.7 * _drop(0.06, 1900, 1650, 0.01, 0.012),
        "shaker": 0.2 * hiss(0.09, 0.03, 5000, 12000, 4),
        "ride": 0.2 * hiss(0.5, 0.18, 4500, 12000, 5),
        "crash": 0.4 * hiss(1.4, 0.4, 3000, 14000, 6),
        "tom": 1.1 * _drop(0.3, 180, 95, 0.06, 0.12),
    }
