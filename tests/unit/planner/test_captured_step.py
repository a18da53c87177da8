"""CapturedStep and Pace on a simulated CUDA device."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from acestep_core.planner.captured_step import SLOT_MULTIPLE, CapturedStep, round_up_slots
from acestep_core.runtime import cuda_graphs
from acestep_core.runtime.cuda_graphs import Pace

CUDA = torch.device("cuda")


class Device:
    """Stands in for a GPU. A step inside a capture only becomes part of the graph."""

    def __init__(self):
        self.graph = None
        self.runs: list[tuple[str, int]] = []
        self.captures = 0

    def step(self, extent: int) -> None:
        if self.graph is None:
            self.runs.append(("direct", extent))
        else:
            self.graph.extent = extent


@pytest.fixture
def device(monkeypatch):
    device = Device()

    class Graph:
        def replay(self):
            device.runs.append(("replay", self.extent))

    @contextmanager
    def graph(captured, **_):
        device.graph, device.captures = captured, device.captures + 1
        yield
        device.graph = None

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    for name in ("current_stream", "set_stream", "Stream"):
        monkeypatch.setattr(torch.cuda, name, lambda _: None)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    yield device
    cuda_graphs._capture_stream.cache_clear()


def test_every_step_runs_once_over_enough_slots(device):
    lengths = range(SLOT_MULTIPLE - 3, SLOT_MULTIPLE + 6)
    step = CapturedStep(device.step, CUDA)
    for length in lengths:
        step(round_up_slots(length, SLOT_MULTIPLE + 100))
    assert len(device.runs) == len(lengths) and device.captures == 2
    for length, (_, extent) in zip(lengths, device.runs, strict=True):
        assert length <= extent <= SLOT_MULTIPLE + 100
    assert [kind for kind, _ in device.runs] == ["direct", *["replay"] * 3, "direct", *["replay"] * 4]


def test_steps_run_directly_after_a_failed_capture(device, monkeypatch, caplog):
    @contextmanager
    def graph(captured, **_):
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", graph)
    step = CapturedStep(lambda extent: device.runs.append(("direct", extent)), CUDA)
    step(SLOT_MULTIPLE)
    assert len(device.runs) == 1
    with caplog.at_level("INFO", "acestep"):
        step(SLOT_MULTIPLE)
    assert "CUDA graph" in caplog.text
    assert len(device.runs) == 3  # the failed capture, which runs nothing on a real device, and the step itself
    step(SLOT_MULTIPLE)
    assert len(device.runs) == 4


def test_host_is_at_most_one_token_ahead(monkeypatch):
    waited, events, streams = [], [], []

    class Event:
        def record(self, stream):
            events.append(self)
            streams.append(stream)

        def synchronize(self):
            waited.append(self)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    pace = Pace(torch.device("cuda", 1))
    for _ in range(4):
        pace()
    assert waited == events[:3] and set(streams) == {"stream of cuda:1"}
    Pace(torch.device("cpu"))()
