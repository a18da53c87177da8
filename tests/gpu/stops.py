"""A stop at any stage, and a device without memory: both leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import torch

from acestep_core import Callbacks, Cancelled, decode, encode, encode_audio, tokenize
from acestep_core.models.tiling import decode_tiled
from acestep_core.planner.decoding import generate_tokens
from acestep_core.planner.planning import plan

from .bounds import relative_rms, rounding_bound
from .context import SONG, Context
from .device import OUT_OF_MEMORY
from .networks import VAE_ROUNDINGS, draw
from .planner import SAMPLING, code_rows
from .registry import Line, NotHere, at_most, check, is_true
from .songs import released_vae

SLACK = 2**20  # cuBLAS and cuDNN keep a workspace of their first call, which every stage has before it is measured
CHECKS_UNTIL_STOP = {"encode text": 1, "audio codes": 1}  # these ask once; the others stop in the middle
Work = Callable[[Callbacks], object]


def stages_of(context: Context) -> dict[str, Work]:
    """Return every stage of a song as a function of its callbacks."""
    model, planner = context.nano(), context.planner()
    rows = code_rows(6 if context.quick else 100, 1)
    latents = context.reference_latents[:, : 40 if context.quick else 100]
    tile = 39 if context.quick else 60  # so that there are two tiles or more
    waveform = 0.1 * draw(1, 2, latents.shape[1] * 1920)
    return {
        "encode text": lambda callbacks: encode(model, SONG, callbacks=callbacks),
        "sample": lambda callbacks: context.latents(model, callbacks=callbacks),
        "decode": lambda callbacks: decode(model, latents, tile_frames=tile, callbacks=callbacks),
        "encode audio": lambda callbacks: encode_audio(model, waveform, 48_000, tile_frames=tile, callbacks=callbacks),
        "audio codes": lambda callbacks: tokenize(model, latents, callbacks),
        "plan": lambda callbacks: plan(planner, SONG, [1], rewrite_caption=False, callbacks=callbacks),
        "planner codes": lambda callbacks: generate_tokens(planner, rows, SAMPLING, "codes", callbacks),
    }


def stopped_at(work: Work, number: int) -> bool:
    """Return True if the work ends with Cancelled when its check of that number asks for a stop."""
    checks = count(1)
    try:
        work(Callbacks(cancelled=lambda: next(checks) >= number))
    except Cancelled:
        return True
    return False


@check("stop.interrupt", "a stop ends every stage and frees its memory", 30)
def interrupt(context: Context) -> Iterator[Line]:
    counts = context.device.has_own_memory
    for name, work in stages_of(context).items():
        work(Callbacks())
        before = context.device.allocated() if counts else 0
        yield is_true(f"{name}: stops", stopped_at(work, CHECKS_UNTIL_STOP.get(name, 2)))
        if counts:
            yield at_most(f"{name}: memory left behind", context.device.allocated() - before, SLACK, "B")
    if not counts:
        raise NotHere(f"memory left behind: {context.torch_device} does not count the memory of its tensors")


@check("stop.leak", "memory does not grow from song to song", 20)
def leak(context: Context) -> Iterator[Line]:
    for name, work in stages_of(context).items():
        for _ in range(1 if context.quick else 2):
            work(Callbacks())
        before = context.device.allocated()
        for _ in range(1 if context.quick else 5):
            work(Callbacks())
        yield at_most(f"{name}: more memory after it ran again", context.device.allocated() - before, 0, "B")


@check("stop.out_of_memory", "too little memory gives torch's error, and smaller tiles work afterwards", 20)
def out_of_memory(context: Context) -> Iterator[Line]:
    device = context.device
    vae = released_vae(context)
    frames, small = (72, 28) if context.quick else (512, 32)
    latents = draw(1, frames, 64, seed=3)
    with torch.inference_mode():
        whole = decode_tiled(vae, latents, frames)
        needed = device.peak(lambda: decode_tiled(vae, latents, frames))
        before = device.allocated()
        raised = False
        with device.memory_limit(needed // 2):
            try:
                decode_tiled(vae, latents, frames)
            except OUT_OF_MEMORY:
                raised = True
            yield is_true("half of the memory: an out-of-memory error", raised)
            device.release()
            yield at_most("memory left behind", device.allocated() - before, SLACK, "B")
            tiles = decode_tiled(vae, latents, small)
        bound = rounding_bound(vae.dtype, VAE_ROUNDINGS, 1)
        yield at_most("in smaller tiles, the same audio", relative_rms(tiles, whole), bound)
