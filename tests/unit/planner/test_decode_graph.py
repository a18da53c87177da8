"""The logic around CUDA graphs, without CUDA: what is recorded is not run, what is replayed is."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from acestep_core.planner.decode_graph import BUCKET, Recorded, in_buckets
from acestep_core.runtime import cuda_graphs
from acestep_core.runtime.cuda_graphs import Pace


class Card:
    """Stands for the device: a step run while recording only goes into the recording."""

    def __init__(self):
        self.recording = None
        self.ran: list[tuple[str, int]] = []
        self.recordings = 0

    def step(self, extent: int) -> None:
        if self.recording is None:
            self.ran.append(("plainly", extent))
        else:
            self.recording.extent = extent


@pytest.fixture
def card(monkeypatch):
    card = Card()

    class Graph:
        def replay(self):
            card.ran.append(("replayed", self.extent))

    @contextmanager
    def graph(recording, **_):
        card.recording, card.recordings = recording, card.recordings + 1
        yield
        card.recording = None

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    for name in ("current_stream", "set_stream", "Stream"):
        monkeypatch.setattr(torch.cuda, name, lambda _: None)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    yield card
    cuda_graphs._lane.cache_clear()


CUDA = torch.device("cuda")


def test_every_step_runs_once_over_enough_slots(card):
    lengths = range(BUCKET - 3, BUCKET + 6)
    run = Recorded(card.step, CUDA)
    for length in lengths:
        run(in_buckets(length, BUCKET + 100))
    assert len(card.ran) == len(lengths) and card.recordings == 2
    assert all(length <= extent <= BUCKET + 100 for length, (_, extent) in zip(lengths, card.ran, strict=True))
    assert [how for how, _ in card.ran] == ["plainly", *["replayed"] * 3, "plainly", *["replayed"] * 4]


def test_where_recording_fails_steps_run_plainly(card, monkeypatch, caplog):
    @contextmanager
    def graph(recording, **_):
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", graph)
    run = Recorded(lambda extent: card.ran.append(("plainly", extent)), CUDA)
    run(BUCKET)
    attempts = len(card.ran)
    with caplog.at_level("INFO", "acestep"):
        run(BUCKET)
    assert "CUDA graphs are not used" in caplog.text
    before = len(card.ran)
    run(BUCKET)
    # The attempt ran nothing on a real device; after it the step was made plainly.
    assert attempts == 1 and before == 3 and len(card.ran) == 4


def test_the_host_is_at_most_one_token_ahead(monkeypatch):
    waited, made, streams = [], [], []

    class Event:
        def record(self, stream):
            made.append(self)
            streams.append(stream)

        def synchronize(self):
            waited.append(self)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"that of {device}")
    pace = Pace(torch.device("cuda", 1))
    for _ in range(4):
        pace()
    assert waited == made[:3] and set(streams) == {"that of cuda:1"}
    Pace(torch.device("cpu"))()
