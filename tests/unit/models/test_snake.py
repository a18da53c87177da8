import pytest
import torch

from acestep_core.models import snake
from acestep_core.models.snake import Snake
from tests.support.pretend_cuda import CUDA, Pretended, pretend_cuda
from tests.support.tiny import draw


def made(dtype=None):
    network = Snake(3, None, dtype).requires_grad_(False)
    network.alpha.copy_(draw(1, 3, 1, seed=1))
    network.beta.copy_(draw(1, 3, 1, seed=2))
    return network


def test_snake():
    network, x = made(), draw(2, 3, 50)
    wanted = x + torch.sin(network.alpha.exp() * x) ** 2 / (network.beta.exp() + 1e-9)
    assert torch.allclose(network(x), wanted, atol=1e-6)


def exact(x, frequency, strength):
    return x + (x * frequency).sin().square() * strength


@pytest.fixture
def compiled(monkeypatch):
    """What torch compiles from the source on the pretended card: the function `kernels["made"]`; and its calls."""
    kernels = {"made": exact, "calls": []}

    def create(source):
        assert source == snake.SOURCE

        def run(*given):
            assert all(isinstance(values, Pretended) for values in given)
            kernels["calls"].append(given[0].dtype)
            return kernels["made"](*given)

        return run

    monkeypatch.setattr(torch.cuda.jiterator, "_create_jit_fn", create)
    snake.kernel.cache_clear()
    yield kernels
    snake.kernel.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_card_it_is_one_kernel(compiled, dtype):
    network, x = made(dtype), draw(1, 3, 70).to(dtype)
    with torch.no_grad(), pretend_cuda():
        there = network.to(CUDA)(x.to(CUDA))
        assert len(compiled["calls"]) == 2, "once to see that it is right, once for this"
        network(x.to(CUDA))
        assert len(compiled["calls"]) == 3
        got = there.cpu()
    assert torch.allclose(got.float(), made(dtype)(x).float(), atol=20 * torch.finfo(dtype).eps)


def test_with_gradients_it_goes_operation_by_operation(compiled):
    with pretend_cuda(), torch.enable_grad():
        made().to(CUDA)(draw(1, 3, 7).to(CUDA))
    assert not compiled["calls"]


def test_memory_that_runs_out_is_not_taken_for_a_kernel_that_is_wrong(compiled):
    def full(*_):
        raise torch.cuda.OutOfMemoryError

    compiled["made"] = full
    x = draw(1, 3, 70)
    with torch.no_grad(), pretend_cuda():
        network = made().to(CUDA)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            network(x.to(CUDA))
        compiled["made"] = exact
        network(x.to(CUDA))
    assert len(compiled["calls"]) == 3


def raising(*_):
    raise RuntimeError("nvrtc: error: failed to open nvrtc-builtins")


@pytest.mark.parametrize(
    "wrong",
    [raising, lambda x, *_: x, lambda x, f, s: exact(x, s, f), lambda x, f, s: exact(x, f, s) * torch.nan],
    ids=["raises", "does nothing", "mixes up its arguments", "not a number"],
)
def test_a_kernel_that_is_not_right_is_not_used(compiled, wrong):
    compiled["made"] = wrong
    x = draw(1, 3, 70)
    with torch.no_grad(), pretend_cuda():
        network = made().to(CUDA)
        got = [network(x.to(CUDA)).cpu() for _ in range(2)]
    assert len(compiled["calls"]) == 1
    assert all(torch.equal(each, made()(x)) for each in got)
