"""Every stage against the CPU, in every dtype, at the released sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .bounds import TF32_EPS, name_of, relative_rms, rounding_bound
from .context import CPU, Context
from .networks import Shape, parity_stages, randomised
from .registry import Line, at_least, at_most, check, not_run, shown

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TITLES = {
    "text": "text encoder",
    "condition": "condition encoder",
    "dit": "diffusion transformer, one guided step",
    "codes": "audio codes to latents",
    "decode": "VAE decode",
    "encode": "VAE encode",
    "planner": "planner (5 Hz LM), a prompt and a token",
}


def compare(context: Context, name: str) -> Iterator[Line]:
    """Yield the relative error of a stage against the CPU in float32, for each shape and dtype."""
    seen = set()
    for shape in context.shapes:
        if name in ("text", "decode", "encode", "planner") and seen:
            continue  # 2B and XL have the same one
        seen.add(shape.name)
        yield from _compare_shape(context, shape, name)


def _compare_shape(context: Context, shape: Shape, name: str) -> Iterator[Line]:
    stage, device = parity_stages(shape)[name], context.torch_device
    size = 4 * sum(each.numel() for each in stage.build(torch.device("meta"), torch.float32).parameters())
    free = context.device.free_bytes()
    if free is not None and free < 1.5 * size:
        reason = f"the weights have {shown(size, 'B')} in float32, and {shown(free, 'B')} are free"
        yield not_run(shape.name, reason)
        return
    with torch.inference_mode():
        # Without the plug-ins for CPUs, which are what is tested on a CPU.
        reference = stage.twin(randomised(stage.build(device, torch.float32), stage.gain), CPU, plugins=False)
        expected = stage.run(reference, CPU).float()
        for dtype in DTYPES:
            twin = stage.twin(reference, device, dtype)
            with exact_convolutions():
                error = relative_rms(stage.run(twin, device).float(), expected)
            label = f"{shape.name}, {name_of(dtype)}"
            yield at_most(label, error, rounding_bound(dtype, stage.roundings, stage.terms))
            if dtype == torch.float32 and name in ("decode", "encode") and context.device.is_gpu:
                error = relative_rms(stage.run(twin, device).float(), expected)
                yield at_most(f"{label}, as shipped (TF32)", error, TF32_EPS * stage.roundings**0.5)
            del twin


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Keep torch from computing float32 convolutions as TF32, which it does by default on NVIDIA GPUs."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def _register(name: str, title: str) -> None:
    @check(f"parity.{name}", f"{title}: the device against the CPU", 20)
    def run(context: Context) -> Iterator[Line]:
        yield from compare(context, name)


for _name, _title in TITLES.items():
    _register(_name, _title)


@check("parity.tokenizer", "latents to audio codes: the device against the CPU", 10)
def audio_codes(context: Context) -> Iterator[Line]:
    """A value on the border of two levels may fall to either side, one in thousands."""
    from acestep_core import tokenize

    latents = context.reference_latents
    expected = tokenize(context.reference, latents)[0]
    for dtype, bound in (("float32", 0.99), ("bfloat16", 0.7)):
        found = tokenize(context.nano(dtype=dtype), latents)[0]
        equal = sum(a == b for a, b in zip(found, expected, strict=True)) / len(expected)
        yield at_least(f"nano, {dtype}, equal codes", equal, bound, reason="a code has four values, each rounded")
