"""Where and in which precision things run, and how a caller watches or stops them.

Small protocols with a plain torch default, so that a host (ComfyUI) can own placement, progress and interruption.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from ..errors import RequestError

log = logging.getLogger("acestep")

DTYPES = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "fp32": torch.float32,
}


def available_devices() -> dict[str, str]:
    """Device name to what it is, best first: CUDA (and ROCm, which torch calls cuda), XPU, MPS, CPU."""
    found = {}
    if torch.cuda.is_available():
        kind = "ROCm" if torch.version.hip else "CUDA"
        found |= {f"cuda:{i}": f"{torch.cuda.get_device_name(i)}, {kind}" for i in range(torch.cuda.device_count())}
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        found |= {f"xpu:{i}": torch.xpu.get_device_name(i) for i in range(torch.xpu.device_count())}
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    found["cpu"] = "processor"
    return found


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name ("cuda", "cuda:1", "xpu", "mps", "cpu"), or the best one for "auto"."""
    found = available_devices()
    asked = str(name).strip().lower()
    if asked == "auto":
        return torch.device(next(iter(found)))
    match = next((device for device in found if asked in (device, device.partition(":")[0], f"{device}:0")), None)
    if match is None:
        here = ", ".join(f"{device} ({what})" for device, what in found.items())
        raise RequestError(f"device {str(name)!r} is not available; available here: {here}, or auto")
    return torch.device(match)


@dataclass(frozen=True)
class Precision:
    """The dtype each network computes in. Make one with `Precision.pick`."""

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
        """The policy of the device, or what is asked for. The text encoder follows the DiT's wish; the VAE does on a
        GPU, but for bfloat16, which is a transformer's best and not a VAE's.

        The condition encoder shares the DiT's dtype; but in float16 its lyric encoder overflows (activations reach
        505 000), so it then computes in float32.
        """
        dit_dtype = pick_dtype(device, "dit", dit)
        text_dtype = pick_dtype(device, "text_encoder", dit if text_encoder is None else text_encoder)
        if vae is None:
            vae = "auto" if device.type == "cpu" or dit_dtype == torch.bfloat16 else dit_dtype
        condition = torch.float32 if dit_dtype == torch.float16 else dit_dtype
        return cls(dit_dtype, condition, text_dtype, pick_dtype(device, "vae", vae))


def pick_dtype(device: torch.device, component: str, asked: str | torch.dtype = "auto") -> torch.dtype:
    """The dtype of one component ("dit", "text_encoder" or "vae") on that device.

    "auto" is bfloat16 where the hardware computes in it and float32 elsewhere. The VAE takes float16 instead, as fast
    and eight times as exact; ComfyUI's own choice for it as well, and see `OobleckVAE`. On a CPU it stays in float32.
    """
    if isinstance(asked, torch.dtype):
        asked = str(asked).removeprefix("torch.")
    name = asked.strip().lower()
    if name == "auto":
        if component == "vae":
            return torch.float16 if device.type != "cpu" and has_bfloat16(device) else torch.float32
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise RequestError(
            f"dtype {asked!r} is unknown; choose auto, bfloat16, float16 or float32 (int8 and fp8 are kinds of storage)"
        )
    dtype = DTYPES[name]
    if dtype == torch.bfloat16 and not has_bfloat16(device):
        log.warning("%s: %s has no fast bfloat16; auto would choose float32", component, device)
    return dtype


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16, not merely emulates it."""
    if device.type == "cuda" and torch.version.hip:
        # CDNA from the MI100 on and RDNA from the third generation on.
        arch = torch.cuda.get_device_properties(device).gcnArchName
        return arch.startswith(("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12"))
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "xpu":
        return True
    if device.type == "cpu":
        return _cpu_has_amx()
    return False


def _cpu_has_amx() -> bool:
    """Intel's matrix units. AVX512-BF16 alone is not enough: measured, its bfloat16 is no faster than float32."""
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("amx_bf16"))
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)  # torch before 2.11
    return bool(probe and probe())
