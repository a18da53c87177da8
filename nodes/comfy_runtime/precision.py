"""Which dtype each network is kept and computed in, by ComfyUI's policy and flags."""

from __future__ import annotations

import comfy.model_management as mm
import torch

from ...acestep_core.errors import RequestError
from ...acestep_core.runtime.devices import has_bfloat16
from ...acestep_core.runtime.options import pick_storage

COMPUTE_DTYPES = [torch.bfloat16, torch.float32]  # float16 overflows in the lyric encoder
STORAGE_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "fp8_e4m3fn": torch.float8_e4m3fn}
PLANNER_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
PLANNER_STORAGE = {"int8": "int8", "fp8_e4m3fn": "fp8"}  # by the core's names


def network_dtypes(asked: str, parameters: int) -> tuple[torch.dtype, torch.dtype]:
    """(storage, compute) dtype of a diffusion model of so many parameters: for "auto" by ComfyUI's policy and flags.

    Its policy never computes in bfloat16 on a CPU. Where the hardware does, it is done when asked for. On a card that
    has no bfloat16 it keeps a model in it that would not fit in float32.
    """
    if asked != "auto" and asked not in STORAGE_DTYPES:
        raise RequestError(f"unknown dtype {asked!r}: allowed are auto, {', '.join(STORAGE_DTYPES)}")
    device = mm.get_torch_device()
    if asked == "fp8_e4m3fn" and not mm.supports_cast(device, torch.float8_e4m3fn):
        raise RequestError(f"{device} cannot restore weights kept in fp8: choose auto, bfloat16 or float32")
    if asked == "bfloat16" and has_bfloat16(device) and not mm.FORCE_FP32:
        return torch.bfloat16, torch.bfloat16
    if asked == "auto":
        storage = mm.unet_dtype(device, parameters, COMPUTE_DTYPES)
    else:
        storage = STORAGE_DTYPES[asked]
    return storage, mm.unet_manual_cast(storage, device, COMPUTE_DTYPES) or storage


def planner_dtypes(asked: str) -> tuple[torch.dtype | None, torch.dtype]:
    """What a planner's layers are kept in, None for the dtype that it computes in; and that dtype. Its layers stay
    within the range of float16, where that is asked for."""
    if asked in PLANNER_STORAGE:
        return pick_storage(mm.get_torch_device(), PLANNER_STORAGE[asked]), text_encoder_dtype()
    if asked != "auto" and asked not in PLANNER_DTYPES:
        raise RequestError(
            f"unknown dtype {asked!r}: allowed are auto, {', '.join((*PLANNER_DTYPES, *PLANNER_STORAGE))}"
        )
    return None, PLANNER_DTYPES.get(asked) or text_encoder_dtype()


def encoder_dtype(compute: torch.dtype) -> torch.dtype:
    """What the condition encoder computes in beside a transformer that computes in `compute`. Its last lyric layer
    reaches 505 000, beyond float16, which ComfyUI's --fp16-unet may ask for."""
    return torch.float32 if compute == torch.float16 else compute


def text_encoder_dtype() -> torch.dtype:
    return torch.bfloat16 if mm.should_use_bf16(mm.get_torch_device()) else torch.float32


def vae_dtype() -> torch.dtype:
    """float16 first, as ComfyUI has it for its own: see `acestep_core.runtime.pick_dtype`."""
    return mm.vae_dtype(mm.vae_device(), [torch.float16, *COMPUTE_DTYPES])
