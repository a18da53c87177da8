import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.edit.morph import MorphSettings
from acestep_core.errors import Cancelled, NonFiniteError, RequestError
from acestep_core.sampling.flow_edit import flow_edit
from acestep_core.sampling.guidance import APG, CFG, Guidance
from acestep_core.sampling.loop import denoise
from acestep_core.sampling.noise import draw_step_noise
from acestep_core.sampling.schedule import make_schedule

SHAPE = (2, 6, 64)
SEEDS = [3, 4]
STEPS = 5
SCHEDULE = make_schedule(STEPS, 1.0)


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SOURCE = random(0, *SHAPE)


def field(seed):
    """A velocity that depends on everything it is given."""
    slope, null = random(seed, 1, 1, 64), random(seed + 100, 1, 1, 64)

    def velocity(x, t, with_null):
        cond = torch.tanh(slope * x) + t * slope
        return torch.cat([cond, torch.sin(null * x) - t]) if with_null else cond

    return velocity


HERE, THERE = field(1), field(2)


def run(here=HERE, there=THERE, **changes):
    return flow_edit(here, there, SOURCE, SCHEDULE, **{"seeds": SEEDS, **changes})


def as_written(guidance, start, end, draws):
    """The published loop, literally, with one momentum for each description."""
    here, there = {"m": 0.0}, {"m": 0.0}

    def guide(velocity, x, t, state):
        """The velocity, and the momentum that this draw would leave."""
        if guidance.scale <= 1:
            return velocity(x, t, False), 0.0
        cond, null = velocity(x, t, True).chunk(2)
        apg = APG()
        apg._running = state["m"] if isinstance(state["m"], torch.Tensor) else None
        return apg.combine(x, t, cond, null, guidance.scale), cond - null

    z = SOURCE.clone()
    times = SCHEDULE.tolist()
    started = False
    for i in range(STEPS):
        t, t_next = times[i], times[i + 1]
        if i < int(STEPS * start):
            continue
        if i < int(STEPS * end):
            change, differences = 0, {"here": [], "there": []}
            for draw in range(draws):
                z_src = (1 - t) * SOURCE + t * draw_step_noise(SEEDS, i * draws + draw, *SHAPE[1:])
                z_tar = z + z_src - SOURCE
                v_tar, d_tar = guide(THERE, z_tar, t, there)
                v_src, d_src = guide(HERE, z_src, t, here)
                change = change + v_tar - v_src
                differences["there"].append(d_tar)
                differences["here"].append(d_src)
            for name, state in (("here", here), ("there", there)):
                state["m"] = sum(differences[name]) / draws - 0.75 * state["m"]
            z = z + (t_next - t) * change / draws
        else:
            if not started:
                z_src = (1 - t) * SOURCE + t * draw_step_noise(SEEDS, i * draws, *SHAPE[1:])
                z, started = z + z_src - SOURCE, True
            v, d = guide(THERE, z, t, there)
            there["m"] = d - 0.75 * there["m"]
            z = z + (t_next - t) * v
    return z


@pytest.mark.parametrize("scale", [1.0, 6.0])
@pytest.mark.parametrize("start, end, draws", [(0, 1, 1), (0.4, 1, 1), (0, 0.7, 1), (0.2, 0.6, 3)])
def test_it_is_the_published_loop(scale, start, end, draws):
    guidance = Guidance(scale=scale)
    settings = MorphSettings(start, end, draws)
    expected = as_written(guidance, start, end, draws)
    torch.testing.assert_close(run(guidance=guidance, settings=settings), expected, rtol=1e-5, atol=1e-5)


def test_the_same_description_leaves_the_source_as_it_is():
    assert torch.allclose(run(there=HERE, guidance=Guidance(scale=5.0)), SOURCE, atol=1e-6)
    assert not torch.allclose(run(), SOURCE, atol=1e-2)


def test_a_late_start_stays_nearer_to_the_source():
    near, far = (run(settings=MorphSettings(start=start)) - SOURCE for start in (0.6, 0.0))
    assert 0 < near.norm() < far.norm()


def test_from_the_end_on_it_is_plain_sampling_of_the_target():
    assert int(STEPS * 0.1) == 0  # all is tail
    noise = draw_step_noise(SEEDS, 0, *SHAPE[1:])
    for guidance in (Guidance(), Guidance(scale=3.0, method=CFG)):
        plain = denoise(THERE, noise, SCHEDULE, guidance=guidance)
        assert torch.allclose(run(settings=MorphSettings(end=0.1), guidance=guidance), plain, atol=1e-6)


def test_an_item_depends_on_its_own_seed_alone():
    both = run()
    alone = flow_edit(HERE, THERE, SOURCE[1:], SCHEDULE, seeds=SEEDS[1:])
    assert torch.allclose(both[1:], alone, atol=1e-6)
    assert not torch.allclose(both, run(seeds=[5, 6]), atol=1e-3)


def test_null_is_computed_only_where_guidance_is_active():
    calls = []

    def spy(x, t, with_null):
        calls.append((round(t, 2), with_null))
        return THERE(x, t, with_null)

    run(there=spy, guidance=Guidance(scale=4.0, interval=(0.3, 0.7)))
    assert calls == [(1.0, False), (0.8, False), (0.6, True), (0.4, True), (0.2, False)]


def test_progress_and_cancel():
    reports = []
    run(callbacks=Callbacks(progress=reports.append))
    assert [progress.step for progress in reports] == [1, 2, 3, 4, 5] and reports[0].stage == "sample"
    assert reports[0].estimate.shape == SHAPE
    with pytest.raises(Cancelled):
        run(callbacks=Callbacks(cancelled=lambda: len(reports) >= 5))


def test_non_finite_latents_raise():
    with pytest.raises(NonFiniteError):
        run(there=lambda x, t, _: x / 0)


@pytest.mark.parametrize(
    "changes", [{"start": -0.1}, {"end": 1.1}, {"start": 0.5, "end": 0.5}, {"start": "a"}, {"draws": 0}, {"draws": 1.5}]
)
def test_bad_settings_are_refused(changes):
    with pytest.raises(RequestError, match="morph"):
        MorphSettings(**changes)
