"""Solvers against a velocity whose exact solution is known.

For data N(μ, s²) in every coordinate and noise N(0, 1), x_t = t·noise + (1 − t)·data has variance
w = t² + (1 − t)²s², and the velocity field E[noise − data | x_t] = −μ + (t − (1 − t)s²)/w · (x − (1 − t)μ) carries the
standardised point along unchanged: noise z ends at μ + s·z.
"""

import math
from itertools import pairwise

import pytest
import torch

from acestep_core.sampling.loop import denoise
from acestep_core.sampling.noise import draw_noise
from acestep_core.sampling.schedule import make_schedule
from acestep_core.sampling.solvers import Heun, SolverStep, dpmpp_3m, euler, sde

MEAN, STD = 0.7, 0.4


def gaussian_velocity(x, t, with_null):
    gain = (t - (1 - t) * STD**2) / (t**2 + (1 - t) ** 2 * STD**2)
    return gain * (x - (1 - t) * MEAN) - MEAN


def final_error(solver, steps):
    noise = torch.linspace(-2, 2, 64).view(1, 1, 64)
    latents = denoise(gaussian_velocity, noise, make_schedule(steps, 1.0), solver=solver)
    return (latents - (MEAN + STD * noise)).abs().max().item()


@pytest.mark.parametrize("solver, order", [(euler, 1), (Heun(), 2), (Heun(correct_last=False), 2)])
def test_order_of_convergence(solver, order):
    errors = torch.tensor([final_error(solver, steps) for steps in (20, 40, 80)])
    orders = (errors[:-1] / errors[1:]).log2()
    assert (orders - order).abs().max() < 0.2


def test_dpmpp_3m_needs_a_quarter_of_the_steps_of_euler():
    for steps in (10, 20, 40):
        assert final_error(dpmpp_3m, steps) < final_error(euler, 4 * steps)


def test_dpmpp_3m_is_exact_for_a_clean_estimate_that_is_linear_in_lambda():
    def half_log_snr(t):
        return math.log((1 - t) / t)

    def clean(t):
        return 0.3 - 0.5 * half_log_snr(t)

    def velocity(x, t, with_null):
        return (x - clean(t)) / t

    schedule = torch.tensor([0.9, 0.8, 0.6, 0.4, 0.1])
    earlier = [(t, torch.full((1, 2, 3), clean(t))) for t in (0.9, 0.8)][::-1]
    x = torch.full((1, 2, 3), 0.7)
    for t, t_next in pairwise(schedule.double().tolist()[2:]):
        x = dpmpp_3m(SolverStep(x.double(), velocity(x, t, False), t, t_next, None, None, earlier))
        earlier = [(t, torch.full((1, 2, 3), clean(t))), *earlier][:2]
    # x_t = (1 − t)·∫ …, integrated finely in λ: d(x / t) = e^λ · clean dλ
    fine = torch.linspace(half_log_snr(0.6), half_log_snr(0.1), 20001, dtype=torch.float64)
    values = fine.exp() * (0.3 - 0.5 * fine)
    expected = 0.1 * (0.7 / 0.6 + torch.trapezoid(values, fine).item())
    assert (x - expected).abs().max() < 1e-6


def test_a_switch_of_the_condition_clears_the_history():
    lengths = []

    def solver(step):
        lengths.append(len(step.earlier))
        return euler(step)

    schedule = make_schedule(5, 1.0)
    switch = (3, lambda: gaussian_velocity)
    denoise(gaussian_velocity, torch.zeros(1, 2, 3), schedule, solver=solver, switch=switch)
    assert lengths == [0, 1, 2, 0, 1]


def test_sde_adds_fresh_noise_to_the_clean_estimate():
    # The estimate is linear in x here, mean and variance of the result follow from the schedule alone.
    schedule = make_schedule(8, 3.0)
    latents = denoise(gaussian_velocity, draw_noise(range(4), 4000), schedule, solver=sde, seeds=range(4))
    mean, variance = 0.0, 1.0
    for t, t_next in pairwise(schedule.tolist()):
        gain = (t - (1 - t) * STD**2) / (t**2 + (1 - t) ** 2 * STD**2)
        clean_mean = mean - t * (gain * (mean - (1 - t) * MEAN) - MEAN)
        mean = (1 - t_next) * clean_mean
        variance = t_next**2 + (1 - t_next) ** 2 * (1 - t * gain) ** 2 * variance
    assert latents.mean().item() == pytest.approx(mean, abs=2e-3)
    assert latents.var().item() == pytest.approx(variance, rel=0.01)


def a_step(t, t_next, correct=None, noise=None):
    return SolverStep(torch.full((1, 2, 3), 2.0), torch.full((1, 2, 3), 4.0), t, t_next, correct, noise)


def test_steps_by_hand():
    assert torch.equal(euler(a_step(0.5, 0.25)), torch.full((1, 2, 3), 1.0))
    assert torch.equal(a_step(0.5, 0.25).clean, torch.zeros(1, 2, 3))
    assert torch.equal(Heun()(a_step(0.5, 0.25, correct=lambda x, t: x + t)), torch.full((1, 2, 3), 2 - 5.25 / 8))
    # data 2 − 0.75·4 = −1; noised to 0.25 with noise 8: 0.25·8 + 0.75·(−1)
    noised = sde(a_step(0.75, 0.25, noise=lambda: torch.full((1, 2, 3), 8.0)))
    assert torch.equal(noised, torch.full((1, 2, 3), 1.25))


def test_last_step_of_euler_and_sde_is_the_clean_estimate_without_noise():
    step = a_step(0.25, 0.0)
    assert torch.equal(euler(step), step.clean) and torch.equal(sde(step), step.clean)


def test_heun_calls_the_network_at_time_zero_except_on_turbo():
    times = []

    def velocity(x, t, with_null):
        times.append(t)
        return gaussian_velocity(x, t, with_null)

    schedule = make_schedule(4, 3.0)
    both_ends = [t for pair in pairwise(schedule.tolist()) for t in pair]
    denoise(velocity, torch.zeros(1, 2, 3), schedule, solver=Heun())
    assert times == both_ends
    times.clear()
    denoise(velocity, torch.zeros(1, 2, 3), schedule, solver=Heun(correct_last=False))
    assert times == both_ends[:-1]
