import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, NonFiniteError
from acestep_core.sampling.guidance import APG, CFG, METHODS, Guidance
from acestep_core.sampling.loop import denoise
from acestep_core.sampling.noise import draw_noise
from acestep_core.sampling.schedule import custom_schedule, make_schedule
from acestep_core.sampling.solvers import SOLVERS, Heun, euler, sde


class Recorder:
    """A velocity that pulls towards +1 with the condition and −1 without, and remembers how it was called."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, with_null):
        self.calls.append((t, with_null))
        assert x.dtype == torch.float32
        cond, null = torch.tanh(x) - 1 + t * x.mean(dim=(1, 2), keepdim=True), torch.sin(x) + 1
        return torch.cat([cond, null]) if with_null else cond


def test_unguided_sampling_never_computes_the_null_branch():
    velocity = Recorder()
    denoise(velocity, draw_noise([1], 6), make_schedule(3, 1.0), guidance=Guidance(scale=1.0))
    assert [with_null for _, with_null in velocity.calls] == [False] * 3


def test_the_null_branch_is_skipped_outside_the_interval():
    velocity = Recorder()
    guidance = Guidance(scale=7.0, interval=(0.3, 0.7))
    denoise(velocity, draw_noise([1], 6), make_schedule(4, 1.0), guidance=guidance)
    assert velocity.calls == [(1.0, False), (0.75, False), (0.5, True), (0.25, False)]


def test_heun_tests_the_interval_again_with_the_time_it_steps_to():
    velocity = Recorder()
    guidance = Guidance(scale=7.0, interval=(0.5, 0.75))
    denoise(velocity, draw_noise([1], 6), make_schedule(4, 1.0), solver=Heun(), guidance=guidance)
    assert velocity.calls == [
        (1.0, False), (0.75, True), (0.75, True), (0.5, True), (0.5, True), (0.25, False), (0.25, False), (0.0, False),
    ]  # fmt: skip


class CountingAPG(APG):
    instances: list = []

    def __init__(self):
        super().__init__()
        self.combined, self.corrected = 0, 0
        CountingAPG.instances.append(self)

    def combine(self, *args):
        self.combined += 1
        return super().combine(*args)

    def correct(self, *args):
        self.corrected += 1
        return super().correct(*args)


def test_momentum_advances_once_per_guided_step_and_restarts_with_every_sampling():
    CountingAPG.instances.clear()
    guidance = Guidance(7.0, CountingAPG, (0.0, 0.6))
    runs = [
        denoise(Recorder(), draw_noise([1], 6), make_schedule(4, 1.0), solver=Heun(), guidance=guidance)
        for _ in range(2)
    ]
    assert [(method.combined, method.corrected) for method in CountingAPG.instances] == [(2, 3), (2, 3)]
    assert torch.equal(*runs)


def test_guided_steps_by_hand():
    noise = draw_noise([1], 6)
    velocity, x = Recorder(), noise
    for t, t_next in [(0.9, 0.4), (0.4, 0.0)]:
        cond, null = velocity(x, t, True).chunk(2)
        x = x - (t - t_next) * (null + 3 * (cond - null))
    result = denoise(velocity, noise, custom_schedule([0.9, 0.4]), guidance=Guidance(3.0, CFG))
    assert torch.allclose(result, x, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("method", METHODS)
def test_a_seed_gives_the_same_latents_alone_and_inside_a_batch(solver, method):
    schedule, guidance = make_schedule(5, 3.0), Guidance(4.0, METHODS[method])

    def run(seeds):
        return denoise(
            Recorder(), draw_noise(seeds, 20), schedule, solver=SOLVERS[solver], guidance=guidance, seeds=seeds
        )

    batch = run([5, 6, 7])
    for k, seed in enumerate([5, 6, 7]):
        assert torch.allclose(batch[k : k + 1], run([seed]), rtol=1e-5, atol=1e-5)
    assert torch.equal(batch, run([5, 6, 7]))
    assert not torch.allclose(batch[0], batch[1])


def test_sde_without_a_seed_for_every_item_is_a_programming_error():
    for seeds in (None, [1]):
        with pytest.raises(ValueError, match="seed"):
            denoise(Recorder(), draw_noise([1, 2], 4), make_schedule(2, 1.0), solver=sde, seeds=seeds)


def test_progress_reports_every_step_with_the_clean_estimate():
    reports = []
    noise = draw_noise([1, 2], 6)
    result = denoise(Recorder(), noise, make_schedule(4, 3.0), callbacks=Callbacks(progress=reports.append))
    assert [(r.stage, r.step, r.total) for r in reports] == [("sample", i, 4) for i in (1, 2, 3, 4)]
    assert torch.equal(reports[0].estimate, noise - Recorder()(noise, 1.0, False))
    assert torch.equal(reports[-1].estimate, result)


@pytest.mark.parametrize("solver", [euler, Heun()])
def test_cancel_stops_before_the_next_network_call(solver):
    velocity = Recorder()
    callbacks = Callbacks(cancelled=lambda: len(velocity.calls) == 3)
    with pytest.raises(Cancelled):
        denoise(velocity, draw_noise([1], 6), make_schedule(8, 3.0), solver=solver, callbacks=callbacks)
    assert len(velocity.calls) == 3


def test_nan_in_the_first_step_stops_at_once_and_names_the_stage_and_the_cause():
    calls = []

    def broken(x, t, with_null):
        calls.append(t)
        return x * float("nan")

    with pytest.raises(NonFiniteError, match="step 1 of 8.*float16"):
        denoise(broken, draw_noise([1], 6), make_schedule(8, 3.0))
    assert len(calls) == 1


def test_infinity_in_a_later_step_is_found_at_the_end():
    def broken(x, t, with_null):
        return x / (0.0 if t < 0.5 else 1.0)

    with pytest.raises(NonFiniteError, match="step 8 of 8"):
        denoise(broken, draw_noise([1], 6), make_schedule(8, 3.0))


def test_after_step_sees_every_step_and_its_result_is_used():
    calls = []

    def keep_first_frame_at_zero(index, t_next, x):
        calls.append((index, t_next))
        return x.index_fill(1, torch.tensor([0]), 0.0)

    result = denoise(Recorder(), draw_noise([1], 6), make_schedule(2, 1.0), after_step=keep_first_frame_at_zero)
    assert calls == [(0, 0.5), (1, 0.0)]
    assert (result[:, 0] == 0).all() and (result[:, 1:] != 0).all()


def test_the_state_is_float32_whatever_the_noise_and_the_velocity_are():
    def velocity(x, t, with_null):
        assert x.dtype == torch.float32
        return x.bfloat16()

    noise = draw_noise([1], 6).double()
    assert denoise(velocity, noise, make_schedule(2, 1.0)).dtype == torch.float32


def test_the_callers_noise_is_left_as_it_was():
    noise = draw_noise([1], 6)
    before = noise.clone()
    denoise(Recorder(), noise, make_schedule(3, 1.0), guidance=Guidance(7.0))
    assert torch.equal(noise, before)


def test_every_velocity_can_be_adjusted_after_guidance():
    noise, schedule = draw_noise([1], 6), make_schedule(3, 1.0)
    plain = denoise(Recorder(), noise, schedule, guidance=Guidance(scale=3.0))
    same = denoise(Recorder(), noise, schedule, guidance=Guidance(scale=3.0), adjust=lambda x, t, v: v)
    still = denoise(Recorder(), noise, schedule, guidance=Guidance(scale=3.0), adjust=lambda x, t, v: 0 * v)
    assert torch.equal(plain, same) and torch.equal(still, noise)
    times = []
    denoise(Recorder(), noise, schedule, solver=Heun(), adjust=lambda x, t, v: times.append(t) or v)
    assert times == pytest.approx([1, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0])


@pytest.mark.parametrize("solver", [euler, Heun()])
def test_switch_to_another_velocity(solver):
    first, second, noise, schedule = Recorder(), Recorder(), draw_noise([1], 6), make_schedule(4, 1.0)
    switched = []
    result = denoise(
        first, noise, schedule, solver=solver, switch=(3, lambda: switched.append(len(first.calls)) or second)
    )
    calls = 1 if solver is euler else 2
    assert switched == [3 * calls] and (len(first.calls), len(second.calls)) == (3 * calls, calls)
    half = denoise(first, noise, schedule[:4], solver=solver)
    assert torch.equal(result, denoise(second, half, schedule[3:], solver=solver))
