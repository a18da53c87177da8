"""The logic around CUDA graphs, without CUDA: what is recorded is not run, what is replayed is."""

from contextlib import contextmanager

import pytest
import torch

from acestep_core.planner.graphs import BUCKET, Pace, runner


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
    def graph(recording):
        card.recording, card.recordings = recording, card.recordings + 1
        yield
        card.recording = None

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.version, "hip", None)
    return card


CUDA = torch.device("cuda")


def test_every_step_runs_once_over_enough_slots(card):
    lengths = range(BUCKET - 3, BUCKET + 6)
    run = runner(card.step, BUCKET + 100, CUDA, graphs=True)
    for length in lengths:
        run(length)
    assert len(card.ran) == len(lengths) and card.recordings == 2
    assert all(length <= extent <= BUCKET + 100 for length, (_, extent) in zip(lengths, card.ran, strict=True))
    assert [how for how, _ in card.ran] == ["plainly", *["replayed"] * 3, "plainly", *["replayed"] * 4]


def test_where_recording_fails_steps_run_plainly(card, monkeypatch, caplog):
    @contextmanager
    def graph(recording):
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", graph)
    run = runner(lambda extent: card.ran.append(("plainly", extent)), BUCKET, CUDA, graphs=True)
    run(1)
    attempts = len(card.ran)
    with caplog.at_level("INFO", "acestep"):
        run(2)
    assert "without CUDA graphs" in caplog.text
    before = len(card.ran)
    run(3)
    # The attempt ran nothing on a real device; after it the step was made plainly.
    assert attempts == 1 and before == 3 and len(card.ran) == 4


def test_elsewhere_steps_run_plainly_at_their_own_length(card, monkeypatch):
    runner(card.step, 500, torch.device("cpu"), graphs=True)(7)
    runner(card.step, 500, CUDA, graphs=False)(8)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    runner(card.step, 500, CUDA, graphs=True)(9)
    assert card.ran == [("plainly", 7), ("plainly", 8), ("plainly", 9)] and card.recordings == 0


def test_the_host_is_at_most_one_token_ahead(monkeypatch):
    waited, made = [], []

    class Event:
        def record(self):
            made.append(self)

        def synchronize(self):
            waited.append(self)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    pace = Pace(CUDA)
    for _ in range(4):
        pace()
    assert waited == made[:3]
    Pace(torch.device("cpu"))()
