from contextlib import closing
from itertools import islice
from threading import current_thread
from threading import enumerate as threads

import pytest
import torch

from acestep_core.planner import random_numbers as dice
from acestep_core.planner.random_numbers import Dice, exponential, rolls


def test_a_seed_gives_the_same_numbers_in_whatever_portions():
    numbers = Dice(7).uniform(500)
    rolled, out = Dice(7), torch.empty(300)
    assert torch.equal(torch.cat((rolled.uniform(200), rolled.uniform(300, out))), numbers)
    assert torch.equal(out, numbers[200:])
    assert not torch.equal(Dice(8).uniform(500), numbers)
    assert torch.equal(Dice(7).roll(500), exponential(numbers)) and torch.equal(exponential(numbers), -numbers.log())
    Dice(2**64 - 1).roll(1)


def test_exponential_numbers_are():
    numbers = Dice(7).roll(100_000)
    assert numbers.min() > 0 and abs(numbers.mean() - 1) < 0.01 and abs(numbers.var() - 1) < 0.03


@pytest.mark.parametrize("tokens", [1, 2, 3, 16, 17, 50])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("most", [1, 2**25])
def test_numbers_of_many_rows_are_those_of_each_alone(monkeypatch, tokens, ahead, most):
    """Drawn ahead or when they are needed, in large portions or in small ones."""
    monkeypatch.setattr(dice, "AHEAD_BYTES", most)
    alone = [Dice(seed).uniform(tokens * 30).view(tokens, 30) for seed in (5, 2**63, 5)]
    together = [rolled.clone() for rolled in rolls([5, 2**63, 5], 30, tokens, ahead=ahead)]
    assert torch.equal(torch.stack(together), torch.stack(alone, dim=1))


def test_numbers_drawn_ahead_stay_while_they_may_still_be_copied(monkeypatch):
    monkeypatch.setattr(dice, "AHEAD_BYTES", 1)
    seen = []
    for rolled in rolls([1, 2], 40, 30, ahead=True):
        seen.append((rolled, rolled.clone()))
        assert all(torch.equal(now, then) for now, then in seen[-2:])


def test_other_threads_draw_ahead_and_end(monkeypatch):
    drawn_by = []
    original = Dice.uniform
    monkeypatch.setattr(Dice, "uniform", lambda *given: drawn_by.append(current_thread().name) or original(*given))
    with closing(rolls([1, 2, 3], 10, 1000, ahead=True)) as rolled:
        assert len(list(islice(rolled, 20))) == 20
    assert all(name.startswith("acestep-dice") for name in drawn_by) and len(drawn_by) <= 3 * 48
    assert not [thread for thread in threads() if thread.name.startswith("acestep-dice")]
    list(rolls([1], 10, 5))
    assert drawn_by[-5:] == [current_thread().name] * 5


def test_numbers_are_drawn_ahead_in_a_host_that_runs_in_inference_mode():
    """As ComfyUI does; its other threads do not."""
    plain = [rolled.clone() for rolled in rolls([1, 2], 40, 30)]
    with torch.inference_mode():
        hosted = [rolled.clone() for rolled in rolls([1, 2], 40, 30, ahead=True)]
    assert torch.equal(torch.stack(hosted), torch.stack(plain))


def test_no_dice_no_numbers():
    assert [(*rolled.shape,) for rolled in rolls([], 10, 2, ahead=True)] == [(0, 10)] * 2
