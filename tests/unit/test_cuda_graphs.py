"""What is asked of torch before, while and after a step is recorded."""

from contextlib import contextmanager

import pytest
import torch

from acestep_core import cuda_graphs
from acestep_core.cuda_graphs import can_record, recorded

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)


class Card:
    def __init__(self):
        self.device, self.stream, self.asked = FIRST, "usual", []
        self.fails: Exception | None = None

    @contextmanager
    def on(self, device):
        before, self.device = self.device, device
        yield
        self.device = before

    @contextmanager
    def graph(self, graph, stream, capture_error_mode):
        self.asked.append((self.device, stream, capture_error_mode))
        self.stream = stream
        yield
        if self.fails:
            raise self.fails  # and the stream stays, as torch has it
        self.stream = "usual"

    def set_stream(self, stream):
        self.stream = stream


@pytest.fixture
def card(monkeypatch):
    card = Card()
    stand_ins = {"device": card.on, "graph": card.graph, "CUDAGraph": object, "set_stream": card.set_stream,
                 "current_stream": lambda _: card.stream, "Stream": lambda device: f"lane of {device}"}  # fmt: skip
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(cuda_graphs, "_refused", set())
    cuda_graphs._lane.cache_clear()
    yield card
    cuda_graphs._lane.cache_clear()


def test_a_step_is_recorded_on_the_card_that_it_runs_on(card):
    ran = []
    assert recorded(lambda: ran.append((card.device, card.stream)), SECOND, pytest.fail) is not None
    assert card.asked == [(SECOND, "lane of cuda:1", "thread_local")] and ran == [(SECOND, "lane of cuda:1")]
    assert (card.device, card.stream) == (FIRST, "usual")


@pytest.mark.parametrize(("error", "reason"), [
    (RuntimeError("operation not permitted\nmore"), "operation not permitted"), (RuntimeError(), "RuntimeError"),
])  # fmt: skip
def test_after_a_failure_all_is_as_before_and_no_other_attempt_is_made(card, error, reason):
    card.fails, heard = error, []
    assert can_record(SECOND)
    assert recorded(lambda: None, SECOND, heard.append) is None
    assert heard == [f"CUDA graphs are not used: a step could not be recorded ({reason})"]
    assert card.stream == "usual"
    assert not can_record(SECOND) and can_record(FIRST)


def test_where_memory_ran_out_it_is_tried_again(card):
    card.fails = torch.cuda.OutOfMemoryError("out of memory")
    assert recorded(lambda: None, SECOND, lambda _: None) is None
    assert can_record(SECOND)
    card.fails = None
    assert recorded(lambda: None, SECOND, pytest.fail) is not None


def test_other_errors_are_not_hidden(card):
    card.fails = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        recorded(lambda: None, FIRST, pytest.fail)
    assert card.stream == "usual"


def test_only_cards_of_nvidia_with_all_weights_on_them_record(card, monkeypatch):
    with torch.device("meta"):
        elsewhere = torch.nn.BatchNorm1d(2)
    assert can_record(FIRST) and not can_record(torch.device("cpu")) and not can_record(FIRST, elsewhere)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not can_record(FIRST)
