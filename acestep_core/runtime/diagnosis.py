"""Describe a device for a bug report: hardware, drivers, dtypes, attention, CUDA graphs, memory."""

from __future__ import annotations

import platform
import sys

import torch

from .cuda_graphs import capture_obstacle
from .devices import available_devices, has_bfloat16, pick_dtype
from .options import STORAGE, pick_compile, pick_storage

COMPONENTS = {"transformer": "dit", "text encoder": "text_encoder", "VAE": "vae", "planner": "planner"}


def describe_software() -> dict[str, str]:
    """Return the versions that decide how a song is computed."""
    return {
        "system": platform.platform(),
        "Python": sys.version.split()[0],
        "torch": torch.__version__,
        "CUDA": torch.version.cuda or "none",
        "ROCm": torch.version.hip or "none",
        "cuDNN": str(torch.backends.cudnn.version() or "none") if torch.cuda.is_available() else "none",
        "transformers": _version("transformers"),
        "triton": _version("triton"),
    }


def describe_device(device: torch.device) -> dict[str, str]:
    """Return what the device is and how networks run on it. Needs no network and moves nothing there."""
    name = str(device)
    found = {"device": name, "name": available_devices().get(name, name)}
    if device.type == "cuda":
        found |= _describe_cuda(device)
    found |= {part: _dtype_name(pick_dtype(device, key)) for part, key in COMPONENTS.items()}
    found["why these dtypes"] = _dtype_reason(device)
    found["attention"] = _attention(device)
    obstacle = capture_obstacle(device)
    found["CUDA graphs"] = f"not used: {obstacle}" if obstacle else "possible"
    found["torch.compile"] = _compile_state(device)
    found["storage"] = ", ".join(name for name in STORAGE if _stores(device, name)) or "none"
    return found


def _describe_cuda(device: torch.device) -> dict[str, str]:
    free, total = torch.cuda.mem_get_info(device)
    return {
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "memory": f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free",
        "allocator": _allocator(),
        "float32 convolutions": "TF32" if torch.backends.cudnn.allow_tf32 else "exact",
    }


def _allocator() -> str:
    try:
        return torch.cuda.get_allocator_backend()
    except (AssertionError, AttributeError, RuntimeError):
        return "unknown"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype_reason(device: torch.device) -> str:
    if has_bfloat16(device):
        vae = "" if device.type == "cpu" else "; the VAE takes float16, which is as fast and more precise"
        return f"the hardware computes in bfloat16{vae}"
    return "the hardware does not compute in bfloat16; --dtype chooses another one"


def _attention(device: torch.device) -> str:
    """Return the kernels that torch may use, in its order of preference."""
    if device.type != "cuda":
        return "torch's own"
    backends = torch.backends.cuda
    states = {
        "cuDNN": getattr(backends, "cudnn_sdp_enabled", lambda: False)(),
        "flash": backends.flash_sdp_enabled() and getattr(backends, "is_flash_attention_available", lambda: True)(),
        "memory-efficient": backends.mem_efficient_sdp_enabled(),
    }
    return ", ".join([*(name for name, enabled in states.items() if enabled), "math"])


def _compile_state(device: torch.device) -> str:
    from ..errors import RequestError

    if device.type not in ("cuda", "xpu"):
        return "not used: it needs a GPU with Triton"
    try:
        pick_compile(device, True)
    except RequestError as error:
        return f"not possible: {error}"
    return "possible"


def _stores(device: torch.device, name: str) -> bool:
    from ..errors import RequestError

    try:
        pick_storage(device, name)
    except RequestError:
        return False
    return True


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
