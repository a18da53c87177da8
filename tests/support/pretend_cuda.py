"""A CUDA device made of nothing: tensors that say they are on `cuda:0`, hold their numbers in main memory, and refuse
to meet tensors of another device as CUDA's do.

So the whole code runs as it runs with a GPU, on a machine without one: a tensor that was left behind, a table that was
made on the wrong device, a step that asks the host while it is recorded is an error here as it is there. Kernels are
those of the processor, all in their order: what they compute is the same, and nothing runs at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from acestep_core.runtime import cuda_graphs

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
aten = torch.ops.aten
TRAVELS = {aten._to_copy.default, aten.copy_.default, Tensor.copy_}  # from one device to another
INDEXES = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
# What the host waits for.
ASKS = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__}
ASKS |= {aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default}
# Calls that want the card itself before any operation is seen: to choose a kernel, or to guard it.
ABOVE = ASKS | {
    Tensor.__invert__,
    Tensor.__getitem__,
    Tensor.__setitem__,
    Tensor.copy_,
    Tensor.contiguous,
    F.scaled_dot_product_attention,
}


class Elsewhere(RuntimeError):
    """An operation got tensors of two devices."""


class Pretended(Tensor):
    """A tensor on `cuda:0`; `held` has the numbers."""

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretended:
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=CUDA, requires_grad=False,
        )  # fmt: skip
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        return perform(function, arguments, options or {})

    def __repr__(self, **_: object) -> str:
        return f"Pretended({self.held!r})"

    def numpy(self, **_: object):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")


class Graph:
    """What was asked for while it was recorded, and not done then; done at each replay, with the same memory."""

    recording: Graph | None = None

    def __init__(self):
        self.steps: list[tuple[Callable, tuple, dict, object]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, tensors: list[Tensor]) -> None:
        """To know their numbers when recording is over."""
        for tensor in tensors:
            self.before.setdefault(id(tensor), (tensor, tensor.clone()))

    def undo(self) -> None:
        with _disable_current_modes():
            for tensor, numbers in reversed(self.before.values()):  # the first to be kept are the oldest
                if 0 not in tensor.stride():
                    tensor.copy_(numbers)

    def replay(self) -> None:
        with _disable_current_modes():
            for function, arguments, options, results in self.steps:
                again = function(*arguments, **options)
                for old, new in zip(tree_flatten(results)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


@contextmanager
def record(graph: Graph, capture_error_mode: str = "global", **_: object) -> Iterator[None]:
    Graph.recording = graph
    try:
        yield
    finally:
        Graph.recording = None
        graph.undo()


def perform(function: Callable, arguments: tuple, options: dict) -> object:
    """Runs `function` on the held tensors and puts its results where they belong."""
    flat, shape = tree_flatten((arguments, options))
    tensors = [value for value in flat if isinstance(value, Tensor)]
    ours = any(isinstance(value, Pretended) for value in tensors)
    if ours and function not in TRAVELS:
        _check_together(function, arguments, tensors)
    asked = options.get("device")
    there = ours if asked is None else asked.type == "cuda"
    if function in (aten.copy_.default, Tensor.copy_):
        there = isinstance(arguments[0], Pretended)
    crosses = ours and function in TRAVELS and not (there and all(isinstance(value, Pretended) for value in tensors))
    if Graph.recording and (function in ASKS or crosses and not _waits_for_nobody(function, arguments, options)):
        raise RuntimeError(f"operation not permitted when stream is capturing: {function}")

    held = [value.held if isinstance(value, Pretended) else value for value in flat]
    held = [CPU if value == CUDA else value for value in held]
    held_arguments, held_options = tree_unflatten(held, shape)
    held_options.pop("pin_memory", None)
    with _disable_current_modes():
        if Graph.recording:
            Graph.recording.keep([value for value in held if isinstance(value, Tensor)])
        result = function(*held_arguments, **held_options)
        if crosses and any(result is value for value in held[1:]):  # between devices there is always a copy
            result = result.clone()
    if Graph.recording and (ours or there):
        Graph.recording.steps.append((function, held_arguments, held_options, result))
    known = {id(inside): outside for inside, outside in zip(held, flat, strict=True) if isinstance(outside, Tensor)}

    def placed(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return known[id(value)] if id(value) in known else Pretended(value) if there else value

    return tree_map(placed, result)


def _check_together(function: Callable, arguments: tuple, tensors: list[Tensor]) -> None:
    strangers = [value for value in tensors if not isinstance(value, Pretended)]
    if function in INDEXES and isinstance(arguments[0], Pretended):  # which may be told from the host
        strangers = [value for value in strangers if all(value is not index for index in arguments[1])]
    if function is Tensor.__getitem__ or function is Tensor.__setitem__ and not isinstance(arguments[-1], Tensor):
        return
    if any(value.dim() for value in strangers):  # a number may come along
        shapes = [list(value.shape) for value in strangers]
        raise Elsewhere(f"{function}: expected all tensors on cuda:0, but found some on the CPU: {shapes}")


def _waits_for_nobody(function: Callable, arguments: tuple, options: dict) -> bool:
    """A copy that the host need not wait for."""
    return bool(options.get("non_blocking") or (function is not aten._to_copy.default and len(arguments) > 2))


class _Operations(TorchDispatchMode):
    """Sees operations of every kind, those that make tensors and take none, too."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function is aten._pin_memory.default:
            return _for_real(torch.clone)(arguments[0])
        return perform(function, arguments, options or {})


class _Calls(TorchFunctionMode):
    """Sees what `ABOVE` tells of, and whoever names the card without its number."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        arguments, options = tree_map(_numbered, (arguments, options or {}))
        if function in (torch.tensor, torch.as_tensor) and options.get("device") == CUDA:
            return function(*arguments, **{**options, "device": CPU}).to(CUDA)
        if function == Tensor.data.__set__:
            return _become(*arguments)
        if function in ABOVE and isinstance(arguments[0], Pretended):
            return perform(function, arguments, options)
        return function(*arguments, **options)


def _become(tensor: Tensor, other: Tensor) -> None:
    """`tensor.data = other`, which torch allows between its own devices alone."""
    other = Pretended(other.held) if isinstance(other, Pretended) else other.detach()
    if isinstance(tensor, torch.nn.Parameter):
        other = torch.nn.Parameter(other, requires_grad=False)
    torch.utils.swap_tensors(tensor, other)


def _numbered(value: object) -> object:
    return CUDA if isinstance(value, (str, torch.device)) and str(value) == "cuda" else value


def _at_once(pool: ThreadPoolExecutor, function: Callable, *arguments, **options) -> Future:
    """In this thread: others know nothing of what is pretended here."""
    done = Future()
    try:
        done.set_result(function(*arguments, **options))
    except Exception as error:
        done.set_exception(error)
    return done


class _Still:
    """A stream or an event: there is nothing to wait for."""

    def __init__(self, *_: object):
        pass

    def __getattr__(self, name: str) -> Callable:
        return lambda *arguments, **options: None


def _for_real(function: Callable) -> Callable:
    def call(*arguments, **options):
        with _disable_current_modes():
            return function(*arguments, **options)

    return call


@contextmanager
def pretend_cuda() -> Iterator[torch.device]:
    """Within, `cuda` is a device that there is."""
    answers = {
        "is_available": True, "device_count": 1, "current_device": 0, "get_device_capability": (9, 0),
        "get_device_name": "Pretended", "synchronize": None, "empty_cache": None, "reset_peak_memory_stats": None,
        "max_memory_allocated": 0, "memory_allocated": 0, "mem_get_info": (80 * 2**30, 80 * 2**30),
        "is_bf16_supported": True, "current_stream": _Still(),
        "set_stream": None, "graph_pool_handle": (0, 1),
    }  # fmt: skip
    stand_ins = {name: mock.Mock(return_value=value) for name, value in answers.items()}
    stand_ins |= {"Event": _Still, "Stream": _Still, "CUDAGraph": Graph, "graph": record}
    stand_ins |= {name: lambda _: nullcontext() for name in ("stream", "device")}
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        # A module that is moved gets new parameters: the old ones cannot take on tensors of another kind.
        stack.callback(cuda_graphs._lane.cache_clear)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        for context in (
            mock.patch.multiple(torch.cuda, **stand_ins),
            mock.patch.object(torch, "load", _for_real(torch.load)),
            mock.patch.object(ThreadPoolExecutor, "submit", _at_once),
            # Of inference mode only that there are no gradients: tensors of a class of one's own cannot be used in it.
            mock.patch.object(torch, "inference_mode", lambda mode=True: torch.set_grad_enabled(not mode)),
            FakeTensorMode(),  # is never asked anything: while it is there, torch does not try to wake a driver
            _Operations(),
            _Calls(),
        ):
            stack.enter_context(context)
        yield CUDA
