"""A simulated CUDA device, for tests on machines without a GPU.

Its tensors report the device `cuda:0`, store their values in host memory, and raise if they meet a tensor of another
device. A tensor left on the CPU, a table on the wrong device, or a captured step that reads values on the host is thus
an error, as with CUDA. Kernels are those of the CPU, in order: results are the same and nothing runs concurrently.
Work that a real device could run in another order is an error, see `simulated_streams`.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from acestep_core.runtime import cuda_graphs
from tests.support.simulated_streams import (
    DEVICE,
    MATMULS,
    Capture,
    SimulatedEvent,
    SimulatedStream,
    Workspace,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
aten = torch.ops.aten
TRANSFERS = {aten._to_copy.default, aten.copy_.default, Tensor.copy_}  # between devices
INDEXES = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
# The host waits for these.
SYNCS = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__}
SYNCS |= {aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default}
# Calls that need a real device before they dispatch an operation.
BEFORE_DISPATCH = SYNCS | {
    Tensor.__invert__,
    Tensor.__getitem__,
    Tensor.__setitem__,
    Tensor.copy_,
    Tensor.contiguous,
    F.scaled_dot_product_attention,
}


class DeviceMismatch(RuntimeError):
    """An operation received tensors of two devices."""


class SimulatedTensor(Tensor):
    """A tensor on `cuda:0`. `held` has its values."""

    @staticmethod
    def __new__(cls, held: Tensor) -> SimulatedTensor:
        tensor = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=CUDA, requires_grad=False,
        )  # fmt: skip
        tensor.held = held
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        return perform(function, arguments, options or {})

    def __repr__(self, **_: object) -> str:
        return f"SimulatedTensor({self.held!r})"

    def numpy(self, **_: object):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")


class Graph:
    """Stands in for torch.cuda.CUDAGraph: operations of a capture, which each replay runs on the same memory."""

    capturing: Graph | None = None

    def __init__(self):
        self.steps: list[tuple[Callable, tuple, dict, object]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        self.stream: SimulatedStream | None = None
        self.workspaces: list[Workspace] = []

    def __del__(self):
        if self.stream is not None:
            DEVICE.free_workspace(self.stream)

    def save(self, tensors: list[Tensor]) -> None:
        """Save values, which `undo` restores after the capture."""
        for tensor in tensors:
            self.before.setdefault(id(tensor), (tensor, tensor.clone()))

    def undo(self) -> None:
        with _disable_current_modes():
            for tensor, values in reversed(self.before.values()):  # the first saved are the oldest
                if 0 not in tensor.stride():
                    tensor.copy_(values)

    def replay(self) -> None:
        if any(workspace.freed for workspace in self.workspaces):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        with _disable_current_modes():
            for function, arguments, options, results in self.steps:
                again = function(*arguments, **options)
                _note_access(function, arguments, options, results)
                for old, new in zip(leaves(results), leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


@contextmanager
def simulated_capture(
    graph: Graph,
    pool: object = None,
    stream: SimulatedStream | None = None,
    capture_error_mode: str = "global",
) -> Iterator[None]:
    """Capture operations. After a failed capture the stream stays the current one, as in torch before 2.12."""
    before, DEVICE.stream = DEVICE.stream, stream or SimulatedStream()
    warm, collecting = DEVICE.stream in DEVICE.workspaces, gc.isenabled()
    Graph.capturing = graph
    try:
        yield
        graph.stream = DEVICE.stream
        DEVICE.captures.append(Capture(DEVICE.stream, pool, collecting, warm or not graph.workspaces))
        DEVICE.stream = before
    finally:
        Graph.capturing = None
        graph.undo()


def perform(function: Callable, arguments: tuple, options: dict) -> object:
    """Run `function` on the held tensors and wrap its results."""
    flat = leaves((arguments, options))
    tensors = [value for value in flat if isinstance(value, Tensor)]
    on_gpu = any(isinstance(value, SimulatedTensor) for value in tensors)
    if on_gpu and function not in TRANSFERS:
        _check_devices(function, arguments, tensors)
    device = options.get("device")
    to_gpu = on_gpu if device is None else device.type == "cuda"
    if function in (aten.copy_.default, Tensor.copy_):
        to_gpu = isinstance(arguments[0], SimulatedTensor)
    only_gpu = to_gpu and all(isinstance(value, SimulatedTensor) for value in tensors)
    crosses = on_gpu and function in TRANSFERS and not only_gpu
    if Graph.capturing and (function in SYNCS or crosses and not _is_asynchronous(function, arguments, options)):
        raise RuntimeError(f"operation not permitted when stream is capturing: {function}")

    held = [value.held if isinstance(value, SimulatedTensor) else value for value in flat]
    held = [CPU if isinstance(value, torch.device) and value == CUDA else value for value in held]
    following = iter(held)
    held_arguments, held_options = mapped(lambda _: next(following), (arguments, options))
    held_options.pop("pin_memory", None)
    with _disable_current_modes():
        if Graph.capturing:
            Graph.capturing.save([value for value in held if isinstance(value, Tensor)])
        result = function(*held_arguments, **held_options)
        if crosses and any(result is value for value in held[1:]):  # a transfer always copies
            result = result.clone()
    if on_gpu or to_gpu:
        name = getattr(function, "_opname", "")
        workspaces = [DEVICE.matmul_workspace()] if name in MATMULS else []
        if Graph.capturing:
            Graph.capturing.steps.append((function, held_arguments, held_options, result))
            Graph.capturing.workspaces += workspaces
        else:
            with _disable_current_modes():
                _note_access(function, held_arguments, held_options, result)
            if function in SYNCS or crosses and not _is_asynchronous(function, arguments, options):
                DEVICE.wait()
    wrapped = {id(inside): outside for inside, outside in zip(held, flat, strict=True) if isinstance(outside, Tensor)}

    def wrap(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return wrapped[id(value)] if id(value) in wrapped else SimulatedTensor(value) if to_gpu else value

    return mapped(wrap, result)


def _note_access(function: Callable, arguments: tuple, options: dict, results: object) -> None:
    """Note which memory an operation reads and writes on the current stream."""
    names = _argument_names(function)
    if names is None:
        written = _tensors(arguments[:1]) if function in (Tensor.copy_, Tensor.__setitem__) else []
    else:
        known, changed = names
        given = dict(zip(known, arguments, strict=False)) | options
        written = _tensors([given.get(name) for name in changed])
    read = _tensors((arguments, options))
    inputs = {tensor.untyped_storage().data_ptr() for tensor in read}
    written += [tensor for tensor in _tensors(results) if tensor.untyped_storage().data_ptr() not in inputs]
    DEVICE.access(read, written)


@functools.cache
def _argument_names(function: Callable) -> tuple[list[str], list[str]] | None:
    """Return the names of all arguments and of those that are written, or None for a function without a schema."""
    schema = getattr(function, "_schema", None)
    if schema is None:
        return None
    changed = [each.name for each in schema.arguments if each.alias_info and each.alias_info.is_write]
    return [each.name for each in schema.arguments], changed


def _tensors(values: object) -> list[Tensor]:
    return [value for value in leaves(values) if isinstance(value, Tensor)]


# torch's own functions for nested values take most of the time of a simulation.
def leaves(values: object) -> list:
    """Return the values in nested tuples, lists and dictionaries, in order."""
    if isinstance(values, dict):
        values = values.values()
    elif not _is_nested(values):
        return [values]
    return [leaf for value in values for leaf in leaves(value)]


def mapped(function: Callable, values: object) -> object:
    """Return the nested values with `function` of each leaf, in order."""
    if isinstance(values, dict):
        return {name: mapped(function, value) for name, value in values.items()}
    if not _is_nested(values):
        return function(values)
    return type(values)([mapped(function, value) for value in values])


def _is_nested(value: object) -> bool:
    return type(value) in (tuple, list) or type(value).__module__ == "torch.return_types"


def _check_devices(function: Callable, arguments: tuple, tensors: list[Tensor]) -> None:
    on_cpu = [value for value in tensors if not isinstance(value, SimulatedTensor)]
    if function in INDEXES and isinstance(arguments[0], SimulatedTensor):  # indices may be on the host
        on_cpu = [value for value in on_cpu if all(value is not index for index in arguments[1])]
    if function is Tensor.__getitem__ or function is Tensor.__setitem__ and not isinstance(arguments[-1], Tensor):
        return
    if any(value.dim() for value in on_cpu):  # scalars may be on the host
        shapes = [list(value.shape) for value in on_cpu]
        raise DeviceMismatch(f"{function}: expected all tensors on cuda:0, but found some on the CPU: {shapes}")


def _is_asynchronous(function: Callable, arguments: tuple, options: dict) -> bool:
    """True if the host does not wait for this copy."""
    return bool(options.get("non_blocking") or (function is not aten._to_copy.default and len(arguments) > 2))


class _Operations(TorchDispatchMode):
    """Handles all operations, including those without tensor arguments."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function is aten._pin_memory.default:
            return _without_simulation(torch.clone)(arguments[0])
        options = options or {}
        device = options.get("device")
        if not types and Graph.capturing is None and (device is None or device.type != "cuda"):
            # Work of the CPU, such as most of loading. Most of the time of `perform` is looking for tensors.
            options = {name: value for name, value in options.items() if name != "pin_memory"}
            return _without_simulation(function)(*arguments, **options)
        return perform(function, arguments, options)


class _Calls(TorchFunctionMode):
    """Handles the calls in `BEFORE_DISPATCH`, and the device name "cuda" without a number."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        arguments, options = mapped(_with_index, (arguments, options or {}))
        if function in (torch.tensor, torch.as_tensor) and options.get("device") == CUDA:
            return function(*arguments, **{**options, "device": CPU}).to(CUDA)
        if function == Tensor.data.__set__:
            return _set_data(*arguments)
        if function in BEFORE_DISPATCH and isinstance(arguments[0], SimulatedTensor):
            return perform(function, arguments, options)
        return function(*arguments, **options)


def _set_data(tensor: Tensor, other: Tensor) -> None:
    """`tensor.data = other`, which torch refuses for a tensor subclass."""
    other = SimulatedTensor(other.held) if isinstance(other, SimulatedTensor) else other.detach()
    if isinstance(tensor, torch.nn.Parameter):
        other = torch.nn.Parameter(other, requires_grad=False)
    torch.utils.swap_tensors(tensor, other)


def _with_index(value: object) -> object:
    return CUDA if isinstance(value, (str, torch.device)) and str(value) == "cuda" else value


def _submit_here(pool: ThreadPoolExecutor, function: Callable, *arguments, **options) -> Future:
    """Run in this thread, as the simulation is local to it."""
    done = Future()
    try:
        done.set_result(function(*arguments, **options))
    except Exception as error:
        done.set_exception(error)
    return done


def _without_simulation(function: Callable) -> Callable:
    def call(*arguments, **options):
        with _disable_current_modes():
            return function(*arguments, **options)

    return call


@contextmanager
def simulated_cuda() -> Iterator[torch.device]:
    """Simulate the device `cuda` within the block."""
    values = {
        "is_available": True, "device_count": 1, "current_device": 0, "get_device_capability": (9, 0),
        "get_device_name": "SimulatedTensor", "empty_cache": None, "reset_peak_memory_stats": None,
        "max_memory_allocated": 0, "memory_allocated": 0, "mem_get_info": (80 * 2**30, 80 * 2**30),
        "is_bf16_supported": True,
        "cudart": SimpleNamespace(cudaHostRegister=lambda *_: 0, cudaHostUnregister=lambda *_: 0),
    }  # fmt: skip
    stand_ins = {name: mock.Mock(return_value=value) for name, value in values.items()}
    stand_ins |= {
        "Event": SimulatedEvent, "Stream": DEVICE.new_stream, "stream": DEVICE.use_stream,
        "current_stream": lambda _=None: DEVICE.stream, "set_stream": DEVICE.set_stream,
        "synchronize": lambda _=None: DEVICE.wait(), "get_allocator_backend": lambda: DEVICE.allocator,
        "CUDAGraph": Graph, "graph": simulated_capture, "graph_pool_handle": DEVICE.new_pool,
        "device": lambda _: nullcontext(),
    }  # fmt: skip
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        # A moved module needs new parameters, as old ones cannot hold another tensor class.
        stack.callback(cuda_graphs._idle_streams.clear)
        stack.callback(DEVICE.reset)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        for context in (
            mock.patch.multiple(torch.cuda, **stand_ins),
            mock.patch.object(torch, "load", _without_simulation(torch.load)),
            mock.patch.object(ThreadPoolExecutor, "submit", _submit_here),
            # Inference mode only disables gradients here, as it does not support tensor subclasses.
            mock.patch.object(torch, "inference_mode", lambda mode=True: torch.set_grad_enabled(not mode)),
            FakeTensorMode(),  # handles nothing, but stops torch from initialising a driver
            _Operations(),
            _Calls(),
        ):
            stack.enter_context(context)
        yield CUDA
