import pytest
import torch

from acestep_core.models import snake
from acestep_core.models.snake import Snake
from tests.support.simulated_cuda import CUDA, SimulatedTensor, simulated_cuda
from tests.support.tiny import draw


def random_snake(dtype=None):
    network = Snake(3, None, dtype).requires_grad_(False)
    network.alpha.copy_(draw(1, 3, 1, seed=1))
    network.beta.copy_(draw(1, 3, 1, seed=2))
    return network


def test_snake():
    network, x = random_snake(), draw(2, 3, 50)
    expected = x + torch.sin(network.alpha.exp() * x) ** 2 / (network.beta.exp() + 1e-9)
    assert torch.allclose(network(x), expected, atol=1e-6)


def exact(x, frequency, strength):
    return x + (x * frequency).sin().square() * strength


@pytest.fixture
def compiled(monkeypatch):
    """Let the simulated GPU compile to `kernels["function"]`, and record the dtypes of its calls."""
    kernels = {"function": exact, "calls": []}

    def create(source):
        assert source == snake.SOURCE

        def run(*inputs):
            assert all(isinstance(values, SimulatedTensor) for values in inputs)
            kernels["calls"].append(inputs[0].dtype)
            return kernels["function"](*inputs)

        return run

    monkeypatch.setattr(torch.cuda.jiterator, "_create_jit_fn", create)
    snake.fused_snake.cache_clear()
    yield kernels
    snake.fused_snake.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda_uses_the_fused_kernel(compiled, dtype):
    network, x = random_snake(dtype), draw(1, 3, 70).to(dtype)
    with torch.no_grad(), simulated_cuda():
        on_gpu = network.to(CUDA)(x.to(CUDA))
        assert len(compiled["calls"]) == 2, "one call to verify it, one for x"
        network(x.to(CUDA))
        assert len(compiled["calls"]) == 3
        got = on_gpu.cpu()
    assert torch.allclose(got.float(), random_snake(dtype)(x).float(), atol=20 * torch.finfo(dtype).eps)


def test_gradients_use_the_eager_kernel(compiled):
    with simulated_cuda(), torch.enable_grad():
        random_snake().to(CUDA)(draw(1, 3, 7).to(CUDA))
    assert not compiled["calls"]


def test_out_of_memory_is_raised_and_tried_again(compiled):
    def out_of_memory(*_):
        raise torch.cuda.OutOfMemoryError

    compiled["function"] = out_of_memory
    x = draw(1, 3, 70)
    with torch.no_grad(), simulated_cuda():
        network = random_snake().to(CUDA)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            network(x.to(CUDA))
        compiled["function"] = exact
        network(x.to(CUDA))
    assert len(compiled["calls"]) == 3


def raising(*_):
    raise RuntimeError("nvrtc: error: failed to open nvrtc-builtins")


@pytest.mark.parametrize(
    "wrong",
    [raising, lambda x, *_: x, lambda x, f, s: exact(x, s, f), lambda x, f, s: exact(x, f, s) * torch.nan],
    ids=["raises", "identity", "swapped arguments", "nan"],
)
def test_a_wrong_kernel_is_not_used(compiled, wrong):
    compiled["function"] = wrong
    x = draw(1, 3, 70)
    with torch.no_grad(), simulated_cuda():
        network = random_snake().to(CUDA)
        got = [network(x.to(CUDA)).cpu() for _ in range(2)]
    assert len(compiled["calls"]) == 1
    assert all(torch.equal(each, random_snake()(x)) for each in got)


def test_a_torch_without_the_private_function_uses_the_eager_kernel(compiled, monkeypatch):
    monkeypatch.delattr(torch.cuda.jiterator, "_create_jit_fn")
    x = draw(1, 3, 70)
    with torch.no_grad(), simulated_cuda():
        got = random_snake().to(CUDA)(x.to(CUDA)).cpu()
    assert torch.equal(got, random_snake()(x)) and not compiled["calls"]


def test_the_fused_kernel_runs_on_the_device_of_its_input(compiled, monkeypatch):
    devices = []
    with torch.no_grad(), simulated_cuda():
        enter = torch.cuda.device
        monkeypatch.setattr(torch.cuda, "device", lambda device: devices.append(device) or enter(device))
        random_snake().to(CUDA)(draw(1, 3, 70).to(CUDA))
    assert devices == [CUDA] * len(compiled["calls"]) == [CUDA] * 2
