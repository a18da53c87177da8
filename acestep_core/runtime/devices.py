"""Where and in which precision things run, and how a caller watches or stops them.

Small protocols with a plain torch default, so that a host (ComfyUI) can own placement, progress and interruption.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from .cuda_graphs import can_record
from .errors import Cancelled, RequestError

log = logging.getLogger("acestep")

DTYPES = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "fp32": torch.float32,
}
STORAGE = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


@dataclass(frozen=True)
class Progress:
    """One report: `step` of `total` done in `stage` ("load VAE", "encode", "sample", "decode", …).

    `estimate` is the current clean estimate, latents `[batch, frames, 64]`, float32, while sampling; else None.
    `tokens` is how many a planner has written so far, in all rows together; else None.
    """

    stage: str
    step: int
    total: int
    estimate: torch.Tensor | None = None
    tokens: int | None = None


def _ignore(_: object) -> None:
    return None


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Hooks:
    """What a caller may hang in: `progress` is told after every step or tile, `cancelled` is asked before each, and
    `warned` gets sentences for the user: what was asked for and has no effect, or not the one that it seems to have."""

    progress: Callable[[Progress], None] = _ignore
    cancelled: Callable[[], bool] = _never
    warned: Callable[[str], None] = _ignore

    def report(
        self, stage: str, step: int, total: int, estimate: torch.Tensor | None = None, tokens: int | None = None
    ) -> None:
        self.progress(Progress(stage, step, total, estimate, tokens))

    def check(self, stage: str) -> None:
        """Raises Cancelled when the caller wants to stop."""
        if self.cancelled():
            raise Cancelled(f"stopped by the user during {stage}")

    def warn(self, sentence: str) -> None:
        log.warning(sentence)
        self.warned(sentence)


class Placement(Protocol):
    """Who brings a network to its device for the time it is needed."""

    def use(self, module: torch.nn.Module) -> AbstractContextManager[torch.device]:
        """Enter: `module` is ready to run on the returned device. Leave: the owner may move it away again."""
        ...


@dataclass(frozen=True)
class Resident:
    """Every network stays on the device."""

    device: torch.device

    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        with torch.inference_mode(False):  # else a moved parameter could never be trained or patched again
            module.to(self.device)
        yield self.device


@dataclass(frozen=True)
class Offload:
    """Networks live in main memory and visit the device for the stage that needs them.

    The tensors in main memory are kept meanwhile, so that going back costs no copy.
    """

    device: torch.device

    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        with visiting(tensors_of(module), self.device):
            yield self.device


def tensors_of(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


@contextmanager
def visiting(tensors: Sequence[torch.Tensor], device: torch.device, but: Sequence[torch.Tensor] = ()) -> Iterator[None]:
    """`tensors` are on `device` inside, without those of `but`. All are back where they were afterwards."""
    homes, staying = [tensor.data for tensor in tensors], {id(tensor) for tensor in but}
    try:
        with torch.inference_mode(False):
            for tensor in tensors:
                if id(tensor) not in staying:
                    tensor.data = _copy_to(tensor.data, device)
        yield
    finally:
        for tensor, home in zip(tensors, homes, strict=True):
            tensor.data = home
        _release_memory(device)


def _copy_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.to(device)


def _release_memory(device: torch.device) -> None:
    """Gives freed blocks back to the driver, so that other programs on the device can have them."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()


def default_placement(
    device: torch.device, offload: bool = False, stream: bool = False, hooks: Hooks | None = None
) -> Placement:
    """Offload or Stream where the device has memory of its own; CPU and MPS share main memory, moving would only
    copy."""
    if not (offload or stream):
        return Resident(device)
    if device.type not in ("cuda", "xpu"):
        (hooks or Hooks()).warn(f"offload and stream save nothing on {device.type}: it has no memory of its own")
        return Resident(device)
    if stream:
        from .streaming import Stream

        return Stream(device)
    return Offload(device)


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


def pick_graphs(device: torch.device, asked: bool, stream: bool, hooks: Hooks | None = None) -> bool:
    """Whether steps are recorded as CUDA graphs: where that is asked for and can be done."""
    if asked and not can_record(device):
        (hooks or Hooks()).warn(f"graphs are ignored on {device}: only cards of NVIDIA's record them")
        return False
    if asked and stream:
        raise RequestError("graphs and stream exclude each other, as a recorded layer may not move: choose one")
    return asked


def pick_compile(device: torch.device, asked: bool, hooks: Hooks | None = None) -> bool:
    """Whether networks are compiled: where that is asked for, and is not known to cost more than it gains."""
    if asked and device.type not in ("cuda", "xpu"):
        # Measured on two cores: half a minute for each length of song, and then a step is 5 % faster. Metal: not tried.
        (hooks or Hooks()).warn(f"compile is ignored on {device}: it is for GPUs with Triton")
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


@contextmanager
def phase(stage: str, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Logs one line when the work inside is done: time, device, dtype, memory (on a CPU the peak so far)."""
    if device.type in ("cuda", "xpu"):
        getattr(torch, device.type).reset_peak_memory_stats(device)
    start = time.perf_counter()
    yield
    if device.type in ("cuda", "xpu"):
        getattr(torch, device.type).synchronize(device)
    seconds = time.perf_counter() - start
    log.info("%s: %.2f s, %s, %s, %s", stage, seconds, device, str(dtype).removeprefix("torch."), _memory(device))


def _memory(device: torch.device) -> str:
    if device.type in ("cuda", "xpu"):
        return f"{getattr(torch, device.type).max_memory_allocated(device) / 2**30:.2f} GiB peak"
    if device.type == "mps":
        return f"{torch.mps.driver_allocated_memory() / 2**30:.2f} GiB"
    if sys.platform == "win32":
        return "memory unknown"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak / 2 ** (30 if sys.platform == 'darwin' else 20):.2f} GiB peak"
