"""Storage and compute dtypes of the networks, by ComfyUI's policy and flags."""

from __future__ import annotations

import comfy.model_management as mm
import torch

from ...acestep_core.errors import RequestError, shown
from ...acestep_core.runtime.devices import has_bfloat16, has_fast_float16
from ...acestep_core.runtime.options import pick_storage

COMPUTE_DTYPES = [torch.bfloat16, torch.float32]  # float16 only where bfloat16 is missing: its range is small
STORAGE_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "fp8_e4m3fn": torch.float8_e4m3fn}
PLANNER_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
PLANNER_STORAGE = {"int8": "int8", "fp8_e4m3fn": "fp8"}  # to the core's names


def network_dtypes(dtype: str, parameters: int) -> tuple[torch.dtype, torch.dtype]:
    """Return storage and compute dtype of a diffusion model with that many parameters.

    ComfyUI's policy never computes in bfloat16 on a CPU. If the user chooses bfloat16 and the CPU supports it, we do.
    A GPU with tensor cores for float16 alone computes in it. On other GPUs without bfloat16, the policy stores a model
    in bfloat16 that does not fit in float32.
    """
    if not isinstance(dtype, str) or (dtype != "auto" and dtype not in STORAGE_DTYPES):  # a link may give anything
        raise RequestError(f"dtype: {shown(dtype)} is unknown. Allowed are auto, {', '.join(STORAGE_DTYPES)}.")
    device = mm.get_torch_device()
    if dtype == "fp8_e4m3fn" and not mm.supports_cast(device, torch.float8_e4m3fn):
        raise RequestError(f"dtype: {device} does not support fp8. Choose auto, bfloat16 or float32.")
    if dtype == "bfloat16" and has_bfloat16(device) and not mm.FORCE_FP32:
        return torch.bfloat16, torch.bfloat16
    allowed = _compute_dtypes(device)
    storage = mm.unet_dtype(device, parameters, allowed) if dtype == "auto" else STORAGE_DTYPES[dtype]
    return storage, mm.unet_manual_cast(storage, device, allowed) or storage


def _compute_dtypes(device: torch.device) -> list[torch.dtype]:
    """Return the dtypes that a diffusion model or planner may compute in, in the order that ComfyUI tries them."""
    return [torch.float16, *COMPUTE_DTYPES] if has_fast_float16(device) else COMPUTE_DTYPES


def planner_dtypes(dtype: str, device: torch.device) -> tuple[torch.dtype | None, torch.dtype]:
    """Return storage and compute dtype of a planner. The storage dtype is None if it is the compute dtype."""
    if isinstance(dtype, str) and dtype in PLANNER_STORAGE:
        return pick_storage(device, PLANNER_STORAGE[dtype]), _planner_dtype(device)
    if not isinstance(dtype, str) or (dtype != "auto" and dtype not in PLANNER_DTYPES):
        allowed = ", ".join(("auto", *PLANNER_DTYPES, *PLANNER_STORAGE))
        raise RequestError(f"dtype: {shown(dtype)} is unknown. Allowed are {allowed}.")
    return None, PLANNER_DTYPES.get(dtype) or _planner_dtype(device)


def _planner_dtype(device: torch.device) -> torch.dtype:
    fast = has_fast_float16(device) and mm.should_use_fp16(device)
    return torch.float16 if fast else text_encoder_dtype(device)


def encoder_dtype(compute: torch.dtype) -> torch.dtype:
    """Return the compute dtype of the condition encoder.

    Its last lyric layer reaches 505 000, beyond float16, which `--fp16-unet` may choose.
    """
    return torch.float32 if compute == torch.float16 else compute


def text_encoder_dtype(device: torch.device | None = None) -> torch.dtype:
    return torch.bfloat16 if mm.should_use_bf16(device or mm.get_torch_device()) else torch.float32


def vae_dtype() -> torch.dtype:
    """Return the dtype of the VAE, float16 first as for ComfyUI's own; see `acestep_core.runtime.devices`."""
    return mm.vae_dtype(mm.vae_device(), [torch.float16, *COMPUTE_DTYPES])
