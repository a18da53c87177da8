"""StepGraphs and Pace on a simulated CUDA device."""

import gc
import weakref
from contextlib import contextmanager

import pytest
import torch

from acestep_core.runtime.cuda_graphs import WARM_UPS, Pace, StepGraphs, can_capture, capture_obstacle
from acestep_core.runtime.diagnosis import describe_device
from tests.support.simulated_cuda import CUDA, simulated_capture, simulated_cuda
from tests.support.simulated_streams import DEVICE, RaceError

RUNS = WARM_UPS + 3
SECOND = torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def cuda():
    with torch.no_grad(), simulated_cuda():
        yield


class Counting:
    """A step that changes its state in place, and returns a product of matrices."""

    def __init__(self, size: int = 2):
        self.state = torch.zeros(size, size, device=CUDA)
        self.one = torch.eye(size, device=CUDA)
        self.streams = []

    def __call__(self) -> torch.Tensor:
        self.streams.append(DEVICE.stream)
        self.state += self.one
        return self.state @ self.one


def run(graphs: StepGraphs, step: Counting, runs: int = RUNS, key: object = "step") -> list[float]:
    """Return the sum of each result."""
    return [float(graphs(key, step).sum()) for _ in range(runs)]


def test_a_step_is_warmed_up_then_captured_and_replayed():
    step = Counting()
    assert run(StepGraphs(CUDA, pytest.fail), step) == [2.0 * (i + 1) for i in range(RUNS)]
    assert len(step.streams) == WARM_UPS + 1
    assert len(DEVICE.captures) == 1


def test_warm_ups_run_on_the_capture_stream():
    """Otherwise cuBLAS allocates its workspace within the capture, in the memory of the graph."""
    step = Counting()
    run(StepGraphs(CUDA, pytest.fail), step)
    [capture] = DEVICE.captures
    assert set(step.streams) == {capture.stream} and capture.stream is not DEVICE.default
    assert capture.warm
    assert DEVICE.stream is DEVICE.default


def test_garbage_collection_pauses_during_a_capture():
    assert gc.isenabled()
    run(StepGraphs(CUDA, pytest.fail), Counting())
    assert not DEVICE.captures[0].collecting and gc.isenabled()
    gc.disable()
    try:
        run(StepGraphs(CUDA, pytest.fail), Counting())
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_graphs_of_one_owner_share_stream_and_pool():
    graphs, steps = StepGraphs(CUDA, pytest.fail), [Counting(2), Counting(3)]
    for i in range(RUNS):
        for step in steps:
            assert float(graphs(len(step.one), step).sum()) == len(step.one) * (i + 1)
    assert len(DEVICE.captures) == 2 and DEVICE.made == 1
    assert len({(capture.stream, capture.pool) for capture in DEVICE.captures}) == 1


def test_a_destroyed_graph_takes_no_workspace_from_a_living_one():
    graphs, step, other = StepGraphs(CUDA, pytest.fail), Counting(), StepGraphs(CUDA, pytest.fail)
    run(graphs, step)
    run(other, Counting())
    first, second = DEVICE.captures
    assert first.stream is not second.stream and first.pool != second.pool
    del other
    assert run(graphs, step, 1) == [2.0 * (RUNS + 1)]


def test_streams_are_reused_after_their_graphs_are_gone():
    for _ in range(3):
        run(StepGraphs(CUDA, pytest.fail), Counting())
    assert DEVICE.made == 1 and all(capture.warm for capture in DEVICE.captures)


def test_graphs_are_destroyed_before_their_stream_is_reused():
    graphs = StepGraphs(CUDA, pytest.fail)
    run(graphs, Counting())
    [(graph, _)] = graphs._captured.values()
    ended = weakref.ref(graph)
    held, graph = graphs._captured, None
    del graphs
    assert not held and ended() is None


def test_streams_are_on_the_device_of_the_step(monkeypatch):
    devices = []
    monkeypatch.setattr(torch.cuda, "Stream", devices.append)
    StepGraphs(SECOND, pytest.fail)
    assert devices == [SECOND]


# -- failures ----------------------------------------------------------------------------------------------------------


class Unfit(Counting):
    """A step that reads a value on the host, which no capture allows."""

    def __call__(self) -> torch.Tensor:
        result = super().__call__()
        float(result.sum())
        return result


@pytest.fixture
def pools(monkeypatch):
    """Stands in for the pools of torch before 2.12, which stay open after a failed capture: (open, released)."""
    begun, released = [], []

    @contextmanager
    def capture(graph, pool, *arguments, **options):
        begun.append((0, pool))
        with simulated_capture(graph, pool, *arguments, **options):
            yield
        begun.clear()

    def end(*pool):
        if pool not in begun:
            raise RuntimeError("no such pool is open")
        begun.remove(pool)

    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *pool: released.append(pool), raising=False)
    return begun, released


def test_a_failed_capture_restores_everything(pools):
    begun, released = pools
    reports, step = [], Unfit()
    graphs = StepGraphs(CUDA, reports.append)
    assert run(graphs, step) == [2.0 * (i + 1) for i in range(RUNS)]
    [report] = reports
    assert "CUDA graphs are not used" in report and "not permitted" in report
    assert begun == [] and len(released) == 1
    assert DEVICE.stream is DEVICE.default and step.streams[WARM_UPS + 1 :] == [DEVICE.default] * 3
    assert gc.isenabled()
    run(graphs, Counting(), key="other")
    assert DEVICE.captures == []
    del graphs
    run(StepGraphs(CUDA, pytest.fail), Counting())
    assert len(DEVICE.captures) == 1


def test_a_closed_pool_is_not_closed_again(pools):
    begun, released = pools

    class Closing(Unfit):
        def __call__(self):
            begun.clear()
            return super().__call__()

    run(StepGraphs(CUDA, lambda _: None), Closing())
    assert released == []


@pytest.mark.parametrize("name", ["_cuda_endAllocateCurrentStreamToPool", "none"])
def test_other_torch_versions_close_pools_if_they_can(pools, monkeypatch, name):
    _, released = pools
    end = torch._C._cuda_endAllocateToPool
    monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool")
    monkeypatch.setattr(torch._C, name, end, raising=False)
    run(StepGraphs(CUDA, lambda _: None), Unfit())
    assert len(released) == (name != "none")


@pytest.mark.parametrize(("error", "reason"), [
    (RuntimeError("not permitted\nmore"), "(not permitted)"), (RuntimeError(), "(RuntimeError)"),
])  # fmt: skip
def test_the_reason_of_a_failure_is_one_line(error, reason):
    reports, runs = [], []

    def step() -> None:
        runs.append(1)
        if len(runs) == WARM_UPS + 1:
            raise error

    graphs = StepGraphs(CUDA, reports.append)
    for _ in range(RUNS):
        graphs("step", step)
    assert len(reports) == 1 and reports[0].endswith(reason)


def test_other_errors_are_raised():
    def step() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        StepGraphs(CUDA, pytest.fail)("step", step)
    assert DEVICE.stream is DEVICE.default


def test_captures_need_an_nvidia_gpu_that_holds_all_weights(monkeypatch):
    with torch.device("meta"):
        network = torch.nn.BatchNorm1d(2)
    assert can_capture(CUDA) and not can_capture(torch.device("cpu")) and not can_capture(CUDA, network)
    assert "weights" in capture_obstacle(CUDA, network) and "cpu" in capture_obstacle(torch.device("cpu"))
    DEVICE.allocator = "cudaMallocAsync"
    assert "cudaMallocAsync" in capture_obstacle(CUDA) and "cudaMallocAsync" in describe_device(CUDA)["CUDA graphs"]
    DEVICE.allocator = "native"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not can_capture(CUDA)


# -- the pace of the host, and the simulation itself -------------------------------------------------------------------


def test_host_is_at_most_one_step_ahead(monkeypatch):
    waited, events, streams = [], [], []

    class Event:
        def record(self, stream):
            events.append(self)
            streams.append(stream)

        def synchronize(self):
            waited.append(self)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    pace = Pace(SECOND)
    for _ in range(4):
        pace()
    assert waited == events[:3] and set(streams) == {"stream of cuda:1"}
    Pace(torch.device("cpu"))()


def test_the_simulation_finds_races():
    other, values = torch.cuda.Stream(CUDA), torch.ones(2, device=CUDA)
    with torch.cuda.stream(other), pytest.raises(RaceError):
        values * 2  # written on the current stream
    other.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(other):
        values * 2
    with pytest.raises(RaceError):
        values.add_(1)  # read on the other stream
    torch.cuda.current_stream().wait_stream(other)
    values.add_(1)


def test_the_simulation_frees_workspaces_as_torch_does():
    """In torch, a graph that is destroyed clears the workspaces of its stream (pytorch/pytorch#193402)."""
    stream, values, graphs = torch.cuda.Stream(CUDA), torch.eye(2, device=CUDA), []
    for _ in range(2):
        graphs.append(torch.cuda.CUDAGraph())
        with torch.cuda.graph(graphs[-1], (0, 1), stream):
            values @ values
    assert [capture.warm for capture in DEVICE.captures] == [False, True]
    graphs[0].replay()
    graphs.pop()
    with pytest.raises(RuntimeError, match="illegal memory access"):
        graphs[0].replay()
