"""DCW against the wavelet transform written out: two matrices instead of means and differences."""

import math

import pytest
import torch

from acestep_core.errors import RequestError
from acestep_core.sampling.loop import denoise
from acestep_core.sampling.settings import TURBO, SamplingSettings
from acestep_core.sampling.solvers import SolverStep
from acestep_core.sampling.wavelet import MODES, WaveletCorrection, find_correction


def haar(frames):
    """Return the low-pass and high-pass rows of an orthonormal Haar transform of an even length."""
    low, high = torch.zeros(frames // 2, frames), torch.zeros(frames // 2, frames)
    for i in range(frames // 2):
        low[i, 2 * i : 2 * i + 2] = 1 / math.sqrt(2)
        high[i, 2 * i : 2 * i + 2] = torch.tensor([1.0, -1.0]) / math.sqrt(2)
    return low, high


def reference(mode, scale, high_scale, x, clean, t):
    if mode == "pix":
        return x + scale * (x - clean)
    frames = x.shape[1]
    x, clean = (torch.nn.functional.pad(each, (0, 0, 0, frames % 2)) for each in (x, clean))
    low, high = haar(x.shape[1])
    (x_low, x_high), (y_low, y_high) = ((low @ each, high @ each) for each in (x, clean))
    if mode in ("low", "double"):
        x_low = x_low + t * scale * (x_low - y_low)
    if mode in ("high", "double"):
        x_high = x_high + (1 - t) * (high_scale if mode == "double" else scale) * (x_high - y_high)
    return (low.T @ x_low + high.T @ x_high)[:, :frames]


def random(seed, frames=9):
    return torch.randn(2, frames, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("frames", [8, 9])
def test_the_correction_is_that_of_the_original(mode, frames):
    step = SolverStep(random(0, frames), random(1, frames), 0.7, 0.5, None, None)
    x = random(2, frames)
    expected = reference(mode, 0.05, 0.02, x, step.clean, 0.7)
    assert (WaveletCorrection(mode)(step, x) - expected).abs().max() < 1e-6
    assert (expected - x).abs().max() > 1e-3


def test_every_step_but_the_last_is_corrected_before_a_repaint():
    corrected, injected = [], []

    def correction(step, x):
        corrected.append(step.t)
        return WaveletCorrection()(step, x)

    def after_step(index, t, x):
        injected.append(len(corrected))
        return x

    schedule = torch.tensor([1.0, 0.6, 0.3, 0.0])
    denoise(lambda x, t, null: -x, random(0), schedule, correction=correction, after_step=after_step)
    assert corrected == pytest.approx([1.0, 0.6, 0.3]) and injected == [1, 2, 3]
    last = SolverStep(random(0), random(1), 0.3, 0.0, None, None)
    assert WaveletCorrection()(last, last.x) is last.x


def test_off_and_strength_zero_correct_nothing():
    assert find_correction("off", 1.0) is None and find_correction("double", 0) is None
    assert find_correction("double", 2.0) == WaveletCorrection("double", 0.1, 0.04)
    assert SamplingSettings().resolve(TURBO).correction is None


@pytest.mark.parametrize("settings", [{"dcw": "sym4"}, {"dcw": None}, {"dcw": "low", "dcw_strength": -1}])
def test_wrong_settings_are_named(settings):
    with pytest.raises(RequestError, match="dcw"):
        SamplingSettings(**settings).resolve(TURBO)
