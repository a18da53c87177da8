from dataclasses import replace

import pytest
import torch

from acestep_core.errors import RequestError
from acestep_core.sampling.guidance import ADG, APG
from acestep_core.sampling.schedule import make_schedule
from acestep_core.sampling.settings import TURBO, SamplingSettings, VariantDefaults
from acestep_core.sampling.solvers import Heun, euler

BASE = VariantDefaults(50, 3.0, 7.0, is_turbo=False)


def test_variants_have_the_recommended_defaults():
    turbo = SamplingSettings().resolve(TURBO)
    base = SamplingSettings().resolve(BASE)
    assert (turbo.settings.steps, turbo.settings.shift, turbo.guidance.scale) == (8, 3.0, 1.0)
    assert (base.settings.steps, base.settings.shift, base.guidance.scale) == (50, 3.0, 7.0)
    assert torch.equal(turbo.schedule, make_schedule(8, 3.0)) and torch.equal(base.schedule, make_schedule(50, 3.0))
    assert base.guidance.method is APG and base.solver is euler
    assert turbo.warnings == base.warnings == ()


def test_values_that_are_given_win():
    given = SamplingSettings(
        steps=5, shift=1.0, guidance_scale=4, guidance_method="adg", guidance_interval=(0.2, 0.8), solver="heun"
    )
    resolved = given.resolve(BASE)
    assert torch.equal(resolved.schedule, make_schedule(5, 1.0))
    assert resolved.guidance.scale == 4.0 and resolved.guidance.interval == (0.2, 0.8)
    assert resolved.guidance.method is ADG and resolved.solver == Heun(correct_last=True)


def test_resolved_settings_resolve_to_themselves():
    for settings in (SamplingSettings(), SamplingSettings(timesteps=[0.9, 0.5, 0]), SamplingSettings(steps=3)):
        once = settings.resolve(BASE)
        again = once.settings.resolve(BASE)
        assert again.settings == once.settings and again.warnings == ()
        assert torch.equal(again.schedule, once.schedule)


def test_guidance_on_turbo_is_forced_off_with_a_warning():
    resolved = SamplingSettings(guidance_scale=7.0).resolve(TURBO)
    assert resolved.guidance.scale == 1.0 and not resolved.guidance.enabled
    assert len(resolved.warnings) == 1 and "turbo" in resolved.warnings[0]


def test_many_steps_on_turbo_are_allowed_with_a_warning():
    assert SamplingSettings(steps=20).resolve(TURBO).warnings == ()
    resolved = SamplingSettings(steps=21).resolve(TURBO)
    assert len(resolved.schedule) == 22 and "21 steps" in resolved.warnings[0]
    assert SamplingSettings(steps=21).resolve(BASE).warnings == ()


def test_heun_on_turbo_takes_a_plain_last_step():
    assert SamplingSettings(solver="heun").resolve(TURBO).solver == Heun(correct_last=False)


def test_custom_timesteps_replace_steps_and_shift():
    resolved = SamplingSettings(timesteps=[0.9, 0.5]).resolve(TURBO)
    assert torch.equal(resolved.schedule, torch.tensor([0.9, 0.5, 0.0])) and resolved.warnings == ()
    assert "ignored" in SamplingSettings(timesteps=[0.9, 0.5], steps=8).resolve(TURBO).warnings[0]


@pytest.mark.parametrize(
    "change, match",
    [
        ({"steps": 0}, "steps"),
        ({"shift": 0.0}, "shift"),
        ({"timesteps": [0.1, 0.9]}, "timesteps"),
        ({"timesteps": []}, "timesteps"),
        ({"guidance_scale": -1.0}, "guidance scale"),
        ({"guidance_scale": float("nan")}, "guidance scale"),
        ({"guidance_interval": (0.8, 0.2)}, "interval"),
        ({"guidance_interval": (0.0, 1.1)}, "interval"),
        ({"guidance_interval": (float("nan"), 1.0)}, "interval"),
        ({"guidance_interval": (0.5,)}, "interval"),
        ({"guidance_interval": None}, "interval"),
        ({"guidance_method": "magic"}, "guidance method 'magic'.*apg"),
        ({"solver": "dpm"}, "solver 'dpm'.*euler"),
    ],
)
def test_bad_values_are_refused_with_what_is_allowed(change, match):
    with pytest.raises(RequestError, match=match):
        replace(SamplingSettings(), **change).resolve(BASE)


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("shares, guided", [((0, 0.5), 4), ((0, 1), 8), ((0.5, 0.5), 0), ((0, 0.1), 0), ((0.9, 1), 1)])
def test_guidance_of_a_share_of_the_steps(solver, shares, guided):
    start, end = shares
    resolved = SamplingSettings(steps=8, guidance_start=start, guidance_end=end, solver=solver).resolve(BASE)
    times = resolved.schedule.tolist()[:-1]
    assert sum(map(resolved.guidance.active, times)) == guided
    assert resolved.guidance.enabled == (guided > 0)
    assert resolved.guidance.active(0.0) == (end == 1)  # Heun's last point
    assert resolved.settings.guidance_scale == 7.0  # a recipe keeps what was asked for
    again = resolved.settings.resolve(BASE)
    assert (again.settings, again.guidance) == (resolved.settings, resolved.guidance)


def test_shares_and_interval_of_guidance_both_apply():
    settings = SamplingSettings(steps=10, shift=1.0, guidance_interval=(0.3, 0.8), guidance_end=0.5)
    guidance = settings.resolve(BASE).guidance
    assert [t / 10 for t in range(11) if guidance.active(t / 10)] == [0.6, 0.7, 0.8]


@pytest.mark.parametrize(
    "settings, keywords",
    [
        ({"guidance_start": -0.1}, "guidance start.*-0.1"),
        ({"guidance_end": 1.5}, "guidance end.*1.5"),
        ({"guidance_end": "half"}, "guidance end.*half"),
        ({"guidance_start": 0.6, "guidance_end": 0.4}, "guidance start.*guidance end"),
        ({"negative_caption": 5}, "negative caption.* 5"),
    ],
)
def test_wrong_shares_and_captions_are_named(settings, keywords):
    with pytest.raises(RequestError, match=keywords):
        SamplingSettings(**settings).resolve(BASE)
