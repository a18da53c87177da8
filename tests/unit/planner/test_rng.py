from contextlib import closing
from itertools import islice
from threading import current_thread
from threading import enumerate as threads

import pytest
import torch

from acestep_core.planner import rng
from acestep_core.planner.rng import RowRng, draw_uniform, to_exponential


def test_seed_gives_the_same_numbers_in_portions_of_any_size():
    numbers = RowRng(7).uniform(500)
    split, out = RowRng(7), torch.empty(300)
    assert torch.equal(torch.cat((split.uniform(200), split.uniform(300, out))), numbers)
    assert torch.equal(out, numbers[200:])
    assert not torch.equal(RowRng(8).uniform(500), numbers)
    assert torch.equal(RowRng(7).exponential(500), -numbers.log())
    RowRng(2**64 - 1).exponential(1)


def test_exponential_distribution():
    numbers = RowRng(7).exponential(100_000)
    assert numbers.min() > 0 and abs(numbers.mean() - 1) < 0.01 and abs(numbers.var() - 1) < 0.03
    assert torch.equal(to_exponential(RowRng(7).uniform(9)), RowRng(7).exponential(9))


@pytest.mark.parametrize("tokens", [1, 2, 3, 16, 17, 50])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("buffer_bytes", [1, 2**25])
def test_rows_do_not_depend_on_each_other(monkeypatch, tokens, ahead, buffer_bytes):
    monkeypatch.setattr(rng, "BYTES_AHEAD", buffer_bytes)
    alone = [RowRng(seed).uniform(tokens * 30).view(tokens, 30) for seed in (5, 2**63, 5)]
    together = [numbers.clone() for numbers in draw_uniform([5, 2**63, 5], 30, tokens, ahead=ahead)]
    assert torch.equal(torch.stack(together), torch.stack(alone, dim=1))


def test_numbers_drawn_ahead_stay_valid_for_two_tokens(monkeypatch):
    monkeypatch.setattr(rng, "BYTES_AHEAD", 1)
    drawn = []
    for numbers in draw_uniform([1, 2], 40, 30, ahead=True):
        drawn.append((numbers, numbers.clone()))
        assert all(torch.equal(now, copy) for now, copy in drawn[-2:])


def test_threads_draw_ahead_and_end(monkeypatch):
    names = []
    original = RowRng.uniform
    monkeypatch.setattr(RowRng, "uniform", lambda *args: names.append(current_thread().name) or original(*args))
    with closing(draw_uniform([1, 2, 3], 10, 1000, ahead=True)) as numbers:
        assert len(list(islice(numbers, 20))) == 20
    assert all(name.startswith("acestep-rng") for name in names) and len(names) <= 3 * 48
    assert not [thread for thread in threads() if thread.name.startswith("acestep-rng")]
    list(draw_uniform([1], 10, 5))
    assert names[-5:] == [current_thread().name] * 5


def test_numbers_are_drawn_ahead_in_inference_mode():
    """ComfyUI runs in inference mode, which other threads do not inherit."""
    plain = [numbers.clone() for numbers in draw_uniform([1, 2], 40, 30)]
    with torch.inference_mode():
        ahead = [numbers.clone() for numbers in draw_uniform([1, 2], 40, 30, ahead=True)]
    assert torch.equal(torch.stack(ahead), torch.stack(plain))


def test_no_rows():
    assert [(*numbers.shape,) for numbers in draw_uniform([], 10, 2, ahead=True)] == [(0, 10)] * 2
