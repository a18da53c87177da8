"""Check what a caller asks of a device: placement, storage dtype, CUDA graphs, torch.compile."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch

from ..callbacks import Callbacks
from ..errors import RequestError
from .cuda_graphs import can_capture
from .placement import Offload, Placement, Resident
from .streaming import Stream

STORAGE = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


def default_placement(
    device: torch.device, offload: bool = False, stream: bool = False, callbacks: Callbacks | None = None
) -> Placement:
    """Offload or Stream where the device has memory of its own; CPU and MPS share main memory, moving would only
    copy."""
    if not (offload or stream):
        return Resident(device)
    if device.type not in ("cuda", "xpu"):
        (callbacks or Callbacks()).warn(
            f"offload and stream save nothing on {device.type}: it has no memory of its own"
        )
        return Resident(device)
    if stream:
        return Stream(device)
    return Offload(device)


def pick_storage(device: torch.device, asked: str | None = None) -> torch.dtype | None:
    """What the transformer's matrices are kept in ("int8", "fp8"); None, for "none" too: the dtype they compute in."""
    if asked is None or str(asked).strip().lower() == "none":
        return None
    storage = STORAGE.get(str(asked).strip().lower())
    if storage is None:
        raise RequestError(f"storage {asked!r} is unknown; choose {', '.join(STORAGE)} or none")
    try:
        torch.zeros(1, device=device).to(storage).to(torch.float32)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        others = " or ".join(name for name in STORAGE if name != asked)
        raise RequestError(f"{device} cannot restore weights kept in {asked} ({error}); try {others}") from error
    return storage


def pick_graphs(device: torch.device, asked: bool, stream: bool, callbacks: Callbacks | None = None) -> bool:
    """Whether steps are recorded as CUDA graphs: where that is asked for and can be done."""
    if asked and not can_capture(device):
        (callbacks or Callbacks()).warn(f"graphs are ignored on {device}: only cards of NVIDIA's record them")
        return False
    if asked and stream:
        raise RequestError("graphs and stream exclude each other, as a recorded layer may not move: choose one")
    return asked


def pick_compile(device: torch.device, asked: bool, callbacks: Callbacks | None = None) -> bool:
    """Whether networks are compiled: where that is asked for, and is not known to cost more than it gains."""
    if asked and device.type not in ("cuda", "xpu"):
        # Measured on two cores: half a minute for each length of song, and then a step is 5 % faster. Metal: not tried.
        (callbacks or Callbacks()).warn(f"compile is ignored on {device}: it is for GPUs with Triton")
        return False
    if asked and not importlib.util.find_spec("triton"):
        raise RequestError(f"compile on {device} needs the package triton, or triton-windows on Windows: install it")
    if asked and device.type == "cuda" and not torch.version.hip:
        capability = torch.cuda.get_device_capability(device)
        if capability < (7, 0):
            given = ".".join(map(str, capability))
            raise RequestError(f"compile needs a card of compute capability 7.0 or more, {device} has {given}")
    # Triton compiles its launchers; the one for Windows brings a compiler.
    if asked and os.name != "nt" and not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        raise RequestError(f"compile on {device} needs a C compiler: install gcc or clang")
    return asked
