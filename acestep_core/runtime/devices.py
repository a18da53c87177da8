"""Devices, and the dtype that each network computes in."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RequestError

log = logging.getLogger("acestep")

# Turing chips without tensor cores (TU116, TU117). Some of them give NaN in float16.
NO_TENSOR_CORES = ("GTX 16", "MX450", "MX550", "T400", "T500", "T550", "T600", "T1000", "T1200", "T2000", "CMP 30HX")

DTYPES = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "fp32": torch.float32,
}


def available_devices() -> dict[str, str]:
    """Return device names and descriptions, best first: CUDA (which includes ROCm), XPU, MPS, CPU."""
    devices: dict[str, str] = {}
    if torch.cuda.is_available():
        kind = "ROCm" if torch.version.hip else "CUDA"
        devices |= {f"cuda:{i}": f"{torch.cuda.get_device_name(i)}, {kind}" for i in range(torch.cuda.device_count())}
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        devices |= {f"xpu:{i}": torch.xpu.get_device_name(i) for i in range(torch.xpu.device_count())}
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    devices["cpu"] = "processor"
    return devices


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device of that name ("cuda", "cuda:1", "xpu", "mps", "cpu"), or the best one for "auto".

    Raises RequestError if there is no such device.
    """
    devices = available_devices()
    requested = str(name).strip().lower()
    if requested == "auto":
        return torch.device(next(iter(devices)))
    match = next((device for device in devices if requested in (device, device.partition(":")[0], f"{device}:0")), None)
    if match is None:
        listing = ", ".join(f"{device} ({description})" for device, description in devices.items())
        raise RequestError(f"device {str(name)!r} is not available; available here: {listing}, or auto")
    return torch.device(match)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device. On CUDA the host does not wait, as the copy is from pinned memory."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


@dataclass(frozen=True)
class Precision:
    """The dtype that each network computes in."""

    dit: torch.dtype
    condition: torch.dtype
    text_encoder: torch.dtype
    vae: torch.dtype

    @classmethod
    def pick(
        cls,
        device: torch.device,
        *,
        dit: str | torch.dtype = "auto",
        text_encoder: str | torch.dtype | None = None,
        vae: str | torch.dtype | None = None,
    ) -> Precision:
        """Return the requested dtypes, or those best for the device.

        text_encoder: by default as `dit`.
        vae: by default as `dit` on a GPU, unless that is bfloat16, which is too coarse for a VAE.

        The condition encoder has the dtype of the DiT. If that is float16 it computes in float32, because its lyric
        encoder overflows float16 (activations reach 505 000).
        """
        dit_dtype = pick_dtype(device, "dit", dit)
        text_dtype = pick_dtype(device, "text_encoder", dit if text_encoder is None else text_encoder)
        if vae is None:
            vae = "auto" if device.type == "cpu" or dit_dtype == torch.bfloat16 else dit_dtype
        condition = torch.float32 if dit_dtype == torch.float16 else dit_dtype
        return cls(dit_dtype, condition, text_dtype, pick_dtype(device, "vae", vae))


def pick_dtype(device: torch.device, component: str, name: str | torch.dtype = "auto") -> torch.dtype:
    """Return the dtype of one component ("dit", "text_encoder", "vae" or "planner") on a device.

    "auto" is bfloat16 if the hardware computes in it, and float16 on a GPU with `has_fast_float16`, else float32. The
    text encoder is float32 instead of float16, which it overflows. The VAE is float16 instead of bfloat16 on a GPU: as
    fast and eight times as precise (see `OobleckVAE`). On a CPU the VAE computes in float32.
    Raises RequestError for an unknown name.
    """
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    key = name.strip().lower()
    if key == "auto":
        if component == "vae" and device.type == "cpu":
            return torch.float32
        if has_bfloat16(device):
            return torch.float16 if component == "vae" else torch.bfloat16
        return torch.float16 if component != "text_encoder" and has_fast_float16(device) else torch.float32
    if key not in DTYPES:
        raise RequestError(
            f"dtype {name!r} is unknown; choose auto, bfloat16, float16 or float32 (int8 and fp8 are storage formats)"
        )
    dtype = DTYPES[key]
    if dtype == torch.bfloat16 and not has_bfloat16(device):
        better = str(pick_dtype(device, component)).removeprefix("torch.")
        log.warning("%s: %s has no fast bfloat16; auto would choose %s", component, device, better)
    return dtype


def has_bfloat16(device: torch.device) -> bool:
    """True if the hardware computes in bfloat16 and does not merely emulate it."""
    if device.type == "cuda" and torch.version.hip:
        # CDNA since the MI100, RDNA since its third generation.
        arch = torch.cuda.get_device_properties(device).gcnArchName
        return arch.startswith(("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12"))
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "xpu":
        return True
    if device.type == "cpu":
        return _cpu_has_amx()
    return False


def has_fast_float16(device: torch.device) -> bool:
    """True for an NVIDIA GPU with tensor cores for float16 and none for bfloat16: Volta and Turing (7.0 to 7.5)."""
    if device.type != "cuda" or torch.version.hip:
        return False
    name = torch.cuda.get_device_name(device)
    return (7, 0) <= torch.cuda.get_device_capability(device) < (8, 0) and not any(x in name for x in NO_TENSOR_CORES)


def _cpu_has_amx() -> bool:
    # AVX512-BF16 alone is not enough: measured, its bfloat16 is no faster than float32.
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("amx_bf16"))
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)  # torch before 2.11
    return bool(probe and probe())
