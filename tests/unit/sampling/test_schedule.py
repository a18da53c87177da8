import math

import pytest
import torch

from acestep_core.errors import RequestError
from acestep_core.sampling.schedule import custom_schedule, make_schedule, steps_in

# Tables that ship with the turbo models, 8 steps.
TURBO_TABLES = {
    1: [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125],
    2: [1, 14 / 15, 6 / 7, 10 / 13, 2 / 3, 6 / 11, 0.4, 2 / 9],
    3: [1, 21 / 22, 0.9, 5 / 6, 0.75, 9 / 14, 0.5, 0.3],
}


@pytest.mark.parametrize("shift", TURBO_TABLES)
def test_eight_steps_are_the_turbo_tables(shift):
    expected = torch.tensor([*TURBO_TABLES[shift], 0], dtype=torch.float64).float()
    schedule = make_schedule(8, shift)
    assert schedule.dtype == torch.float32
    assert torch.equal(schedule, expected)


def test_verification_vectors():
    assert make_schedule(8, 3)[1].item() == pytest.approx(0.9545454545, rel=1e-7)
    assert make_schedule(8, 2)[7].item() == pytest.approx(0.2222222222, rel=1e-7)


@pytest.mark.parametrize("steps", [1, 50, 200, 1000])
@pytest.mark.parametrize("shift", [1e-3, 0.5, 1.0, 3.0, 100.0])
def test_every_schedule_goes_from_one_to_zero_and_always_down(steps, shift):
    schedule = make_schedule(steps, shift)
    assert schedule.shape == (steps + 1,) and schedule[0] == 1 and schedule[-1] == 0
    assert (schedule.diff() < 0).all()


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, True, "8", None])
def test_bad_steps_are_refused(steps):
    with pytest.raises(RequestError, match="steps"):
        make_schedule(steps, 3.0)


@pytest.mark.parametrize("shift", [0, -1.0, math.nan, math.inf, 101, "3", None])
def test_bad_shift_is_refused(shift):
    with pytest.raises(RequestError, match="shift"):
        make_schedule(8, shift)


def test_custom_timesteps_are_verbatim_with_or_without_the_final_zero():
    documented = [0.97, 0.76, 0.615, 0.5, 0.395, 0.28, 0.18, 0.085, 0]
    assert torch.equal(custom_schedule(documented), torch.tensor(documented))
    assert torch.equal(custom_schedule(documented[:-1]), torch.tensor(documented))
    assert torch.equal(custom_schedule([1]), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    "timesteps",
    [
        [],
        [0],
        [1.1, 0.5],
        [0.5, 0.5],
        [0.5, 0.6],
        [0.5, 0, 0],
        [1, -0.1],
        [math.nan],
        [math.inf, 0.5],
        ["x"],
        None,
        0.5,
        [0.5, 0.5 - 1e-12],
    ],
)
def test_bad_timesteps_are_refused(timesteps):
    with pytest.raises(RequestError, match="timesteps"):
        custom_schedule(timesteps)


def test_a_share_of_the_steps_is_whole_steps():
    assert all(steps_in(part / 100, 100) == part for part in range(101))
    assert [steps_in(share, 8) for share in (0, 0.124, 0.125, 0.5, 0.99, 1)] == [0, 0, 1, 4, 7, 8]
