import math

import pytest
import torch

from acestep_core.sampling.guidance import ADG, APG, CFG, METHODS, Guidance


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def apg_one_channel(conds, nulls, scale):
    """APG of one item and channel over several steps, in plain Python floats."""
    running, results = [0.0] * len(conds[0]), []
    for cond, null in zip(conds, nulls, strict=True):
        running = [c - u - 0.75 * r for c, u, r in zip(cond, null, running, strict=True)]
        clip = min(1.0, 2.5 / math.sqrt(sum(r * r for r in running)))
        clipped = [r * clip for r in running]
        length = max(math.sqrt(sum(c * c for c in cond)), 1e-12)
        unit = [c / length for c in cond]
        along = sum(d * u for d, u in zip(clipped, unit, strict=True))
        orthogonal = (d - along * u for d, u in zip(clipped, unit, strict=True))
        results.append([c + (scale - 1) * o for c, o in zip(cond, orthogonal, strict=True)])
    return results


@pytest.mark.parametrize("magnitude", [0.01, 1.0, 30.0])  # below and above the clip
def test_apg_works_over_time_for_every_item_and_channel_by_itself(magnitude):
    conds, nulls = magnitude * random(1, 4, 2, 9, 3), magnitude * random(2, 4, 2, 9, 3)
    apg = APG()
    guided = torch.stack([apg.combine(conds[0], 0.5, c, u, 7.0) for c, u in zip(conds, nulls, strict=True)])
    for item in range(2):
        for channel in range(3):
            expected = apg_one_channel(conds[:, item, :, channel].tolist(), nulls[:, item, :, channel].tolist(), 7.0)
            assert relative_error(guided[:, item, :, channel], torch.tensor(expected)) < 1e-5


def test_apg_of_equal_velocities_is_the_conditional_one():
    cond = random(1, 1, 5, 2)
    assert torch.equal(APG().combine(cond, 0.5, cond, cond, 7.0), cond)
    silent = torch.zeros(1, 5, 2)
    assert torch.equal(APG().combine(silent, 0.5, silent, silent, 7.0), silent)


def test_apg_adds_nothing_along_the_conditional_velocity():
    cond, null = random(1, 2, 50, 4), random(2, 2, 50, 4)
    added = APG().combine(cond, 0.5, cond, null, 7.0) - cond
    assert (added * cond).sum(1).abs().max() < 1e-4


def test_apg_correction_is_plain_cfg_and_leaves_the_momentum_alone():
    cond, null, x = random(1, 1, 8, 4), random(2, 1, 8, 4), random(3, 1, 8, 4)
    plain, interrupted = APG(), APG()
    plain.combine(x, 0.9, cond, null, 3.0)
    interrupted.combine(x, 0.9, cond, null, 3.0)
    assert torch.allclose(interrupted.correct(x, 0.8, cond, null, 3.0), null + 3 * (cond - null))
    assert torch.equal(plain.combine(x, 0.8, null, cond, 3.0), interrupted.combine(x, 0.8, null, cond, 3.0))


def test_cfg_is_the_straight_extrapolation():
    cond, null = random(1, 2, 8, 4), random(2, 2, 8, 4)
    for make in (CFG().combine, CFG().correct):
        assert torch.allclose(make(cond, 0.5, cond, null, 4.0), 4 * cond - 3 * null, atol=1e-5)


def adg_formula(x, t, cond, null, scale, max_angle, keep_norm):
    """The angle-based formula, frame by frame in Python floats and for the norm over time."""
    estimates = (x.double() - t * cond.double()), (x.double() - t * null.double())
    result = torch.empty_like(estimates[0])
    weight = scale - 1 + 1e-3
    for b in range(x.shape[0]):
        for frame in range(x.shape[1]):
            c, u = (e[b, frame].tolist() for e in estimates)
            dot = sum(p * q for p, q in zip(c, u, strict=True))
            norm_c, norm_u = math.sqrt(sum(p * p for p in c)), math.sqrt(sum(q * q for q in u))
            theta = math.acos(max(-1 + 1e-6, min(1 - 1e-6, dot / (norm_c * norm_u))))
            turn = weight * theta if max_angle is None else max(-max_angle, min(max_angle, weight * theta))
            d = [p - q for p, q in zip(c, u, strict=True)]
            along = sum(p * q for p, q in zip(d, u, strict=True)) / (norm_u**2 + 1e-8)
            factor = math.sin(turn) / math.sin(theta) if math.sin(theta) > 1e-3 else weight
            guided = [math.cos(turn) * p + factor * (e - along * q) for p, q, e in zip(c, u, d, strict=True)]
            result[b, frame] = torch.tensor(guided, dtype=torch.float64)
    if keep_norm:
        result *= estimates[0].norm(dim=1, keepdim=True) / result.norm(dim=1, keepdim=True)
    return ((x - result) / t).float()


ADG_VARIANTS = {"adg": (3.14 / 6, False), "adg_w_norm": (3.14 / 3, True), "adg_wo_clip": (None, False)}


@pytest.mark.parametrize("name", ADG_VARIANTS)
@pytest.mark.parametrize("t", [1.0, 0.5, 0.05])
@pytest.mark.parametrize("apart", [1e-4, 0.1, 1.0])  # angles below sin θ = 1e-3, inside the clip, and beyond it
def test_adg_turns_the_clean_estimate_frame_by_frame(name, t, apart):
    x, cond = random(1, 2, 6, 64), random(2, 2, 6, 64)
    null = cond + apart * random(3, 2, 6, 64)
    expected = adg_formula(x, t, cond, null, 7.0, *ADG_VARIANTS[name])
    assert relative_error(METHODS[name]().combine(x, t, cond, null, 7.0), expected) < 1e-5


def test_adg_correction_is_adg_but_cfg_at_time_zero():
    x, cond, null = random(1, 1, 6, 4), random(2, 1, 6, 4), random(3, 1, 6, 4)
    adg = ADG()
    assert torch.equal(adg.correct(x, 0.5, cond, null, 7.0), adg.combine(x, 0.5, cond, null, 7.0))
    assert torch.equal(adg.correct(x, 0.0, cond, null, 7.0), null + 7 * (cond - null))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_treats_the_items_of_a_batch_alone(name):
    x, cond, null = (random(seed, 3, 3, 7, 5) for seed in (1, 2, 3))  # [step, item, frame, channel]
    batch, alone = METHODS[name](), METHODS[name]()
    for step, t in enumerate([1.0, 0.7, 0.3]):
        together = batch.combine(x[step], t, cond[step], null[step], 5.0)
        single = alone.combine(x[step, 1:2], t, cond[step, 1:2], null[step, 1:2], 5.0)
        assert torch.allclose(together[1:2], single, rtol=1e-6, atol=1e-6)


def test_guidance_is_active_only_above_one_and_inside_the_interval():
    assert not Guidance(scale=1.0).active(0.5)
    assert not Guidance(scale=0.0).enabled
    guidance = Guidance(scale=1.01, interval=(0.3, 0.9))
    assert [guidance.active(t) for t in (1.0, 0.91, 0.9, 0.5, 0.3, 0.29)] == [False, False, True, True, True, False]


def test_the_interval_bounds_include_times_rounded_to_float32():
    t = torch.tensor(0.9).item()
    assert t < 0.9 and Guidance(scale=2.0, interval=(0.9, 1.0)).active(t)
