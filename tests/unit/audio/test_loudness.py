"""Loudness, its range and true peaks: the signals of EBU Tech 3341 and 3342, pyloudnorm, and ffmpeg's ebur128.

The numbers are those of the tests in the two documents. Tests of surround sound and of real programmes are left out.
"""

import contextlib
import itertools
import math
import re
import tempfile
from pathlib import Path

import av
import numpy
import pyloudnorm
import pytest
import torch

from acestep_core.audio.loudness import measure_loudness
from acestep_core.audio.true_peak import true_peak
from acestep_core.errors import RequestError
from tests.support.sounds import RATE, music, noise, tones


@pytest.mark.parametrize(
    ("number", "parts", "integrated"),
    [
        (1, [(-23, 20)], -23),
        (2, [(-33, 20)], -33),
        (3, [(-36, 10), (-23, 60), (-36, 10)], -23),
        (4, [(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23),
        (5, [(-26, 20), (-20, 20.1), (-26, 20)], -23),
    ],
)
def test_tech_3341_integrated(number, parts, integrated):
    assert measure_loudness(tones(*parts), RATE).integrated == pytest.approx(integrated, abs=0.1)


def test_tech_3341_short_term():
    assert measure_loudness(tones(*[(-20, 1.34), (-30, 1.66)] * 5), RATE).short_term == pytest.approx(-23, abs=0.1)
    for i in (0, 7, 19):  # tests 10 and 11 of 20 parts each
        for level in (-23, -38 + i):
            part = tones((-200, i * 0.15), (level, 3), (-200, 1))
            assert measure_loudness(part, RATE).short_term == pytest.approx(level, abs=0.1)


@pytest.mark.parametrize(
    ("number", "period", "degrees", "level"),
    [(15, 4, 0, -6), (16, 4, 45, -6), (17, 6, 60, -6), (18, 8, 67.5, -6), (19, 4, 45, 3)],
)
def test_tech_3341_true_peak(number, period, degrees, level):
    phase = 2 * math.pi * torch.arange(RATE, dtype=torch.float64) / period + math.radians(degrees)
    fade = torch.linspace(0, 1, 480, dtype=torch.float64)
    envelope = torch.cat([fade, torch.ones(RATE - 960, dtype=torch.float64), fade.flip(0)])
    sine = (10 ** (level / 20) * envelope * torch.sin(phase)).float().expand(2, -1)
    assert level - 0.4 <= true_peak(sine, RATE) <= level + 0.2


@pytest.mark.parametrize("offset", range(4))
def test_tech_3341_true_peak_between_samples(offset):
    """As in tests 20 to 23: one peak of 0 dBFS at 192 kHz, of which 48 kHz keeps every fourth sample."""
    t = torch.arange(-9600, 9600, dtype=torch.float64) / (4 * RATE)
    burst = torch.exp(-((t / 0.002) ** 2)) * torch.cos(2 * math.pi * 8000 * t)
    assert -0.4 <= true_peak(burst[offset::4].float().expand(2, -1), RATE) <= 0.2


@pytest.mark.parametrize(
    ("number", "levels", "expected"),
    [(1, (-20, -30), 10), (2, (-20, -15), 5), (3, (-40, -20), 20), (4, (-50, -35, -20, -35, -50), 15)],
)
def test_tech_3342_range(number, levels, expected):
    assert measure_loudness(tones(*[(level, 20) for level in levels]), RATE).range == pytest.approx(expected, abs=1)


SOUNDS = {
    "white": lambda seed: noise(4, seed),
    "brown": lambda seed: 0.02 * noise(4, seed).cumsum(1).clamp(-40, 40),
    "swelling": lambda seed: noise(4, seed) * torch.linspace(0, 1, 4 * RATE) ** 3,
    "clipped": lambda seed: noise(4, seed, 0.8).clamp(-1, 1),
    "music": lambda seed: music(4, seed),
    "loud music": lambda seed: (3 * music(4, seed)).tanh(),
    "pauses": lambda seed: music(4, seed) * (torch.arange(4 * RATE) // RATE % 2),
}


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("seed", range(7))
def test_random_and_musical_sounds_agree_with_two_meters(sound, seed):
    waveform = faded(SOUNDS[sound](seed))
    levels = measure_loudness(waveform, RATE)
    oracle = ebur128(waveform)
    assert levels.integrated == pytest.approx(
        pyloudnorm.Meter(RATE).integrated_loudness(waveform.T.double().numpy()), abs=0.1
    )
    assert levels.integrated == pytest.approx(oracle["I"], abs=0.1)
    assert levels.range == pytest.approx(oracle["LRA"], abs=1)
    assert levels.true_peak == pytest.approx(20 * math.log10(oracle["true_peak"]), abs=0.2)


@pytest.mark.parametrize("rate", [22050, 44100, 96000, 192000])
def test_other_sample_rates_agree_with_ffmpeg(rate):
    waveform = faded(noise(4, rate))
    levels, oracle = measure_loudness(waveform, rate), ebur128(waveform, rate)
    assert levels.integrated == pytest.approx(oracle["I"], abs=0.1)
    assert levels.true_peak == pytest.approx(20 * math.log10(oracle["true_peak"]), abs=0.2)


def faded(waveform: torch.Tensor) -> torch.Tensor:
    """Fade both ends. ffmpeg does not report the overshoot where a sound is cut off."""
    ramp = torch.ones(waveform.shape[-1])
    ramp[:480], ramp[-480:] = torch.linspace(0, 1, 480), torch.linspace(1, 0, 480)
    return waveform * ramp


def ebur128(waveform: torch.Tensor, rate: int = RATE) -> dict[str, float]:
    """Return what ffmpeg's filter ebur128 reports at the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # PyAV 19 keeps the report open
        report = Path(folder) / "report.txt"
        _run_ebur128(waveform, rate, report)
        lines = re.findall(r"^lavfi\.r128\.(\w+)=(.+)$", report.read_text(), re.MULTILINE)
    return {name: float(value) for name, value in lines}


def _run_ebur128(waveform: torch.Tensor, rate: int, report: Path) -> None:
    """Write the values of each frame to a file, at once. PyAV before 18 cannot read them."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=rate, format="fltp", layout="stereo", time_base=f"1/{rate}")
    printer = graph.add("ametadata", mode="print", file=str(report), direct="1")
    chain = [source, graph.add("ebur128", "metadata=1:peak=true"), printer, graph.add("abuffersink")]
    for before, after in itertools.pairwise(chain):
        before.link_to(after)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(numpy.ascontiguousarray(waveform.numpy()), format="fltp", layout="stereo")
    frame.sample_rate = rate
    source.push(frame)
    source.push(None)
    with contextlib.suppress(av.error.EOFError, av.error.BlockingIOError):
        while True:
            chain[-1].pull()


def test_silence_and_short_audio_have_no_loudness():
    for waveform in (torch.zeros(2, RATE), noise(0.39), torch.zeros(2, 1), torch.zeros(1, 0)):
        levels = measure_loudness(waveform, RATE)
        assert (levels.integrated, levels.range) == (-math.inf, 0)
    assert measure_loudness(noise(0.41), RATE).integrated > -30
    assert measure_loudness(torch.zeros(2, RATE), RATE).true_peak == -math.inf
    assert measure_loudness(torch.full((2, 1), 0.5), RATE).true_peak == pytest.approx(-6.02, abs=0.01)


def test_one_channel_is_three_lu_quieter_than_the_same_in_two():
    mono = measure_loudness(music(4)[:1], RATE)
    stereo = measure_loudness(music(4)[:1].expand(2, -1), RATE)
    assert stereo.integrated - mono.integrated == pytest.approx(3.01, abs=0.01)
    assert stereo.true_peak == mono.true_peak


def test_a_sample_rate_that_no_recording_has_is_refused():
    with pytest.raises(RequestError, match="sample rate"):
        measure_loudness(noise(1), 1)
