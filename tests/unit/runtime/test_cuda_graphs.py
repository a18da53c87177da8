"""Calls of torch before, during and after a capture."""

from contextlib import contextmanager

import pytest
import torch

from acestep_core.runtime import cuda_graphs
from acestep_core.runtime.cuda_graphs import can_capture, capture

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)
CAPTURE_STREAM = "capture stream of cuda:1"


class FakeCuda:
    """Stands in for torch.cuda. After a failed capture it stays on the capture stream, as torch does before 2.12."""

    leaves_pools_open = True

    def __init__(self):
        self.device, self.stream, self.captures = FIRST, "usual", []
        self.open, self.released = [], []  # memory pools
        self.fails: Exception | None = None

    @contextmanager
    def use_device(self, device):
        before, self.device = self.device, device
        yield
        self.device = before

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        self.captures.append((self.device, stream, capture_error_mode))
        if self.leaves_pools_open:
            self.open.append((self.device.index, pool))
        self.stream = stream
        yield
        if self.fails:
            raise self.fails
        self.open.clear()
        self.stream = "usual"

    def end(self, *pool):
        if pool not in self.open:
            raise RuntimeError("no such pool is open")
        self.open.remove(pool)

    def set_stream(self, stream):
        self.stream = stream


@pytest.fixture
def cuda(monkeypatch):
    cuda = FakeCuda()
    stand_ins = {"device": cuda.use_device, "graph": cuda.graph, "CUDAGraph": object, "set_stream": cuda.set_stream,
                 "current_stream": lambda _: cuda.stream, "Stream": lambda device: f"capture stream of {device}",
                 "graph_pool_handle": lambda: (0, 7), "current_device": lambda: cuda.device.index}  # fmt: skip
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", cuda.end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *pool: cuda.released.append(pool), raising=False)
    cuda_graphs._capture_stream.cache_clear()
    yield cuda
    cuda_graphs._capture_stream.cache_clear()


def test_a_capture_uses_the_device_of_the_step(cuda):
    ran = []
    assert capture(lambda: ran.append((cuda.device, cuda.stream)), SECOND, pytest.fail) is not None
    assert cuda.captures == [(SECOND, CAPTURE_STREAM, "thread_local")] and ran == [(SECOND, CAPTURE_STREAM)]
    assert (cuda.device, cuda.stream) == (FIRST, "usual")


@pytest.mark.parametrize(("error", "reason"), [
    (RuntimeError("operation not permitted\nmore"), "operation not permitted"), (RuntimeError(), "RuntimeError"),
])  # fmt: skip
def test_a_failed_capture_restores_everything(cuda, error, reason):
    cuda.fails, reports = error, []
    assert capture(lambda: None, SECOND, reports.append) is None
    [report] = reports
    assert "CUDA graphs are not used" in report and f"({reason})" in report
    assert cuda.stream == "usual"
    assert cuda.open == [] and cuda.released == [(1, (0, 7))]
    cuda.fails = None
    assert capture(lambda: None, SECOND, pytest.fail) is not None


def test_a_closed_pool_is_not_closed_again(cuda):
    cuda.fails = RuntimeError("operation not permitted")
    cuda.leaves_pools_open = False
    assert capture(lambda: None, SECOND, lambda _: None) is None
    assert cuda.released == []


@pytest.mark.parametrize("name", ["_cuda_endAllocateCurrentStreamToPool", "none"])
def test_other_torch_versions_close_pools_if_they_can(cuda, monkeypatch, name):
    monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool")
    monkeypatch.setattr(torch._C, name, cuda.end, raising=False)
    cuda.fails = RuntimeError("operation not permitted")
    assert capture(lambda: None, SECOND, lambda _: None) is None
    assert len(cuda.released) == (name != "none")


def test_other_errors_are_raised(cuda):
    cuda.fails = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        capture(lambda: None, FIRST, pytest.fail)
    assert cuda.stream == "usual"


def test_captures_need_an_nvidia_gpu_that_holds_all_weights(cuda, monkeypatch):
    with torch.device("meta"):
        network = torch.nn.BatchNorm1d(2)
    assert can_capture(FIRST) and not can_capture(torch.device("cpu")) and not can_capture(FIRST, network)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not can_capture(FIRST)
