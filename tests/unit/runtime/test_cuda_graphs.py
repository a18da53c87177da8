"""What is asked of torch before, while and after a step is recorded."""

from contextlib import contextmanager

import pytest
import torch

from acestep_core.runtime import cuda_graphs
from acestep_core.runtime.cuda_graphs import can_capture, capture

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)


class NeverOpen(list):
    def append(self, pool):
        pass


class Card:
    def __init__(self):
        self.device, self.stream, self.asked = FIRST, "usual", []
        self.open, self.released = [], []  # pools of the allocator
        self.fails: Exception | None = None

    @contextmanager
    def on(self, device):
        before, self.device = self.device, device
        yield
        self.device = before

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        self.asked.append((self.device, stream, capture_error_mode))
        self.open.append((self.device.index, pool))
        self.stream = stream
        yield
        if self.fails:
            raise self.fails  # and the stream and the pool stay, as torch has it before 2.12
        self.open.clear()
        self.stream = "usual"

    def end(self, *pool):
        if pool not in self.open:
            raise RuntimeError("not currently recording to mempool_id")
        self.open.remove(pool)

    def set_stream(self, stream):
        self.stream = stream


@pytest.fixture
def card(monkeypatch):
    card = Card()
    stand_ins = {"device": card.on, "graph": card.graph, "CUDAGraph": object, "set_stream": card.set_stream,
                 "current_stream": lambda _: card.stream, "Stream": lambda device: f"lane of {device}",
                 "graph_pool_handle": lambda: (0, 7), "current_device": lambda: card.device.index}  # fmt: skip
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", card.end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *pool: card.released.append(pool), raising=False)
    cuda_graphs._lane.cache_clear()
    yield card
    cuda_graphs._lane.cache_clear()


def test_a_step_is_recorded_on_the_card_that_it_runs_on(card):
    ran = []
    assert capture(lambda: ran.append((card.device, card.stream)), SECOND, pytest.fail) is not None
    assert card.asked == [(SECOND, "lane of cuda:1", "thread_local")] and ran == [(SECOND, "lane of cuda:1")]
    assert (card.device, card.stream) == (FIRST, "usual")


@pytest.mark.parametrize(("error", "reason"), [
    (RuntimeError("operation not permitted\nmore"), "operation not permitted"), (RuntimeError(), "RuntimeError"),
])  # fmt: skip
def test_after_a_failure_all_is_as_before(card, error, reason):
    card.fails, heard = error, []
    assert capture(lambda: None, SECOND, heard.append) is None
    assert heard == [f"CUDA graphs are not used: a step could not be recorded ({reason})"]
    assert card.stream == "usual"
    assert card.open == [] and card.released == [(1, (0, 7))]
    card.fails = None
    assert capture(lambda: None, SECOND, pytest.fail) is not None


def test_a_pool_that_torch_has_left_itself_is_not_left_twice(card, monkeypatch):
    card.fails = RuntimeError("operation not permitted")
    monkeypatch.setattr(card, "open", NeverOpen())
    assert capture(lambda: None, SECOND, lambda _: None) is None
    assert card.released == []


@pytest.mark.parametrize("older", ["_cuda_endAllocateCurrentStreamToPool", "none"])
def test_other_versions_of_torch_are_left_as_far_as_they_can_be(card, monkeypatch, older):
    monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool")
    monkeypatch.setattr(torch._C, older, card.end, raising=False)
    card.fails = RuntimeError("operation not permitted")
    assert capture(lambda: None, SECOND, lambda _: None) is None
    assert len(card.released) == (older != "none")


def test_other_errors_are_not_hidden(card):
    card.fails = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        capture(lambda: None, FIRST, pytest.fail)
    assert card.stream == "usual"


def test_only_cards_of_nvidia_with_all_weights_on_them_record(card, monkeypatch):
    with torch.device("meta"):
        elsewhere = torch.nn.BatchNorm1d(2)
    assert can_capture(FIRST) and not can_capture(torch.device("cpu")) and not can_capture(FIRST, elsewhere)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not can_capture(FIRST)
