"""Check the device options of a request: placement, storage dtype, CUDA graphs, torch.compile."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch

from ..callbacks import Callbacks
from ..errors import RequestError
from .cuda_graphs import capture_obstacle
from .placement import Offload, Placement, Resident
from .streaming import Stream

STORAGE = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


def default_placement(
    device: torch.device, offload: bool = False, stream: bool = False, callbacks: Callbacks | None = None
) -> Placement:
    """Return the requested placement. On devices that share host memory this is always Resident, with a warning."""
    if not (offload or stream):
        return Resident(device)
    if device.type not in ("cuda", "xpu"):
        (callbacks or Callbacks()).warn(f"offload and stream are ignored: {device} has no memory of its own")
        return Resident(device)
    return Stream(device) if stream else Offload(device)


def pick_storage(device: torch.device, name: str | None = None) -> torch.dtype | None:
    """Return the storage dtype of the transformer's matrices for "int8" or "fp8", None for "none" or None.

    Raises RequestError if the name is unknown or the device cannot dequantise it.
    """
    if name is None or str(name).strip().lower() == "none":
        return None
    storage = STORAGE.get(str(name).strip().lower())
    if storage is None:
        raise RequestError(f"storage {name!r} is unknown; choose {', '.join(STORAGE)} or none")
    try:
        torch.zeros(1, device=device).to(storage).to(torch.float32)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        others = " or ".join(other for other in STORAGE if other != name)
        raise RequestError(f"storage {name!r} does not work on {device} ({error}); try {others}") from error
    return storage


def pick_graphs(device: torch.device, requested: bool, stream: bool, callbacks: Callbacks | None = None) -> bool:
    """Return whether steps are captured as CUDA graphs. Warn if they are requested and the device cannot do it.

    Raises RequestError for graphs together with `stream`.
    """
    if requested and (obstacle := capture_obstacle(device)):
        (callbacks or Callbacks()).warn(f"graphs are ignored: {obstacle}")
        return False
    if requested and stream:
        raise RequestError("graphs and stream exclude each other, as a captured layer cannot move: choose one")
    return requested


def pick_compile(device: torch.device, requested: bool, callbacks: Callbacks | None = None) -> bool:
    """Return whether networks are compiled. Warn if that is requested and the device gains nothing from it.

    Raises RequestError if Triton, a C compiler or a newer GPU is missing.
    """
    if not requested:
        return False
    if device.type not in ("cuda", "xpu"):
        # Measured on two cores: half a minute for each length of song, and then a step is 5 % faster. Metal: not tried.
        (callbacks or Callbacks()).warn(f"compile is ignored: it needs a GPU with Triton, and this is {device}")
        return False
    if not importlib.util.find_spec("triton"):
        raise RequestError(f"compile on {device} needs the package triton, or triton-windows on Windows: install it")
    if device.type == "cuda" and not torch.version.hip:
        capability = torch.cuda.get_device_capability(device)
        if capability < (7, 0):
            version = ".".join(map(str, capability))
            raise RequestError(f"compile needs a GPU of compute capability 7.0 or more, and {device} has {version}")
    # Triton compiles its launchers. Its Windows package includes a compiler.
    if os.name != "nt" and not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        raise RequestError(f"compile on {device} needs a C compiler: install gcc or clang")
    return True
