"""The trained nano model on the device: the same seed is the same song, whatever the options."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from acestep_core import Callbacks, RequestError, decode, encode_audio
from acestep_core.load import Model
from acestep_core.models.compiling import compile_parts
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.tiling import decode_tiled, encode_tiled
from acestep_core.runtime.devices import pick_dtype
from acestep_core.runtime.options import pick_compile

from .bounds import ROUNDINGS, name_of, relative_rms, rounding_bound
from .context import SEED, Context
from .networks import VAE_ROUNDINGS, draw, randomised
from .registry import Line, NotHere, at_least, at_most, check, is_true, measured

LAYERS, TERMS = 6, 640  # of nano. Its sampling damps errors: one step's roundings bound those of a song (measured).
SONG_ROUNDINGS = LAYERS * ROUNDINGS
# Half a step of the format, relative to a typical weight. In int8 a row's largest weight is 4 typical ones.
STORAGE_STEPS = {"int8": 4 / 127, "fp8": 2**-4}
FRAMES, TILE = 48, 40
SHORT = 25  # frames that are decoded


def song_bound(dtype: torch.dtype) -> float:
    """Return the largest relative error of nano's latents that rounding explains."""
    return rounding_bound(dtype, SONG_ROUNDINGS, TERMS)


def same(result: Tensor, expected: Tensor) -> bool:
    return torch.equal(result, expected)


@check("song.same_seed", "the same seed is the same song on the device and on the CPU", 15)
def same_seed(context: Context) -> Iterator[Line]:
    model, bound = context.nano(), song_bound(torch.float32)
    latents, expected = context.latents(model), context.reference_latents
    yield at_most("nano's latents in float32, against the CPU", relative_rms(latents, expected), bound)
    yield is_true("a second run gives the same latents, bit for bit", same(context.latents(model), latents))
    yield at_least("another seed gives another song", relative_rms(context.latents(model, seeds=[8]), latents), 0.1)
    batch = context.latents(model, seeds=[3, SEED])
    yield at_most("the song inside a batch of two", relative_rms(batch[1:], latents), bound)
    waveform, expected = (decode(each, latents[:, :SHORT]) for each in (model, context.reference))
    # On NVIDIA GPUs torch computes float32 convolutions as TF32, which is as coarse as float16.
    dtype = torch.float16 if context.device.is_gpu else torch.float32
    bound = rounding_bound(dtype, VAE_ROUNDINGS, TERMS)
    yield at_most("nano's audio from the same latents, VAE in float32", relative_rms(waveform, expected), bound)


@check("song.dtypes", "songs in the default dtypes and in float16 are the song in float32", 15)
def dtypes(context: Context) -> Iterator[Line]:
    for name in ("auto", "bfloat16", "float16"):
        model = context.nano(dtype=name)
        dtype, vae = model.network.decoder.dtype, model.vae.dtype  # type: ignore[union-attr]
        error = relative_rms(context.latents(model), context.reference_latents)
        yield at_most(f"{name}: transformer {name_of(dtype)}, VAE {name_of(vae)}", error, song_bound(dtype))


def against_plain(context: Context, model: Model) -> Iterator[Line]:
    """Yield how far a song of a model with options is from the song without, in the default dtype."""
    expected, found = context.latents(context.nano(dtype=context.dtype)), context.latents(model)
    bound = song_bound(context.dtype)
    yield at_most("nano's latents against those without", relative_rms(found, expected), bound)
    yield measured("bit for bit equal", "yes" if same(found, expected) else "no")
    yield is_true("a second song is equal to the first, bit for bit", same(context.latents(model), found))


@check("option.graphs", "CUDA graphs give the same song", 15)
def graphs(context: Context) -> Iterator[Line]:
    if not context.device.has_graphs:
        raise NotHere(f"CUDA graphs need an NVIDIA GPU, and this is {context.torch_device}")
    model = replace(context.nano(dtype=context.dtype), graphs=True)
    yield from against_plain(context, model)
    warnings: list[str] = []
    longer = context.latents(model, seconds=16.0, callbacks=Callbacks(warning=warnings.append))
    yield is_true("steps are captured", not warnings, no=" ".join(warnings))
    expected = context.latents(replace(model, graphs=False), seconds=16.0)
    yield at_most("another duration afterwards", relative_rms(longer, expected), song_bound(context.dtype))


@check("option.compile", "torch.compile gives the same song", 90)
def compiled(context: Context) -> Iterator[Line]:
    device = context.torch_device
    try:
        usable = pick_compile(device, True)
    except RequestError as error:
        raise NotHere(str(error)) from error
    if not usable:
        raise NotHere(f"torch.compile is not used on {device}: it needs a GPU with Triton")
    model = context.nano(dtype=context.dtype, fresh="compile")
    compile_parts(model.network)  # type: ignore[arg-type]
    yield from against_plain(context, model)


@check("option.offload", "networks in host memory give the same song", 10)
def offload(context: Context) -> Iterator[Line]:
    _require_own_memory(context)
    yield from against_plain(context, context.nano(dtype=context.dtype, offload=True))


@check("option.stream", "layers that stream through the device give the same song", 15)
def stream(context: Context) -> Iterator[Line]:
    _require_own_memory(context)
    yield from against_plain(context, context.nano(dtype=context.dtype, stream=True))


def _require_own_memory(context: Context) -> None:
    if not context.device.has_own_memory:
        raise NotHere(f"{context.torch_device} shares host memory, so there is nothing to move")


@check("option.int8", "transformer matrices in int8", 10)
def int8(context: Context) -> Iterator[Line]:
    yield from _quantised(context, "int8")


@check("option.fp8", "transformer matrices in fp8", 10)
def fp8(context: Context) -> Iterator[Line]:
    yield from _quantised(context, "fp8")


def _quantised(context: Context, storage: str) -> Iterator[Line]:
    try:
        model = context.nano(storage=storage)
    except RequestError as error:
        raise NotHere(str(error)) from error
    found = context.latents(model)
    if context.device.is_gpu:
        expected = context.latents(context.load(device="cpu", storage=storage))
        error = relative_rms(found, expected)
        yield at_most(f"against the CPU with {storage}", error, song_bound(torch.float32))
    bound = STORAGE_STEPS[storage] * LAYERS**0.5
    error = relative_rms(found, context.reference_latents)
    yield at_most("against float32", error, bound, reason="half a step of the format times the root of the layers")


@check("vae.tiles", "the VAE in tiles equals the VAE in one piece", 20)
def tiles(context: Context) -> Iterator[Line]:
    vae = released_vae(context)
    bound = rounding_bound(vae.dtype, VAE_ROUNDINGS, 1)
    latents = draw(1, FRAMES, 64, seed=3).to(context.torch_device)
    with torch.inference_mode():
        whole = decode_tiled(vae, latents, FRAMES)
        yield at_most("decode", relative_rms(decode_tiled(vae, latents, TILE), whole), bound)
        waveform = 0.3 * draw(1, 2, FRAMES * vae.config.hop, seed=4).to(context.torch_device)
        whole = encode_tiled(vae, waveform, FRAMES)
        yield at_most("encode", relative_rms(encode_tiled(vae, waveform, TILE), whole), bound)


@check("vae.overflow", "a VAE that overflows float16 continues in float32", 20)
def overflow(context: Context) -> Iterator[Line]:
    vae = released_vae(context, torch.float16)
    latents = 100 * draw(1, 24, 64, seed=3).to(context.torch_device)
    with torch.inference_mode():
        vae.decoder.conv1.weight.mul_(2000)
        plain = vae.decoder(latents.mT.half())
        yield is_true("the test's weights overflow float16", not bool(torch.isfinite(plain).all()))
        yield is_true("the result is finite", bool(torch.isfinite(vae.decode(latents)).all()))


def released_vae(context: Context, dtype: torch.dtype | None = None) -> OobleckVAE:
    """Return the VAE of the first shape with random weights, by default in the dtype that the device prefers."""
    dtype = dtype or pick_dtype(context.torch_device, "vae")
    config = context.shapes[0].vae
    return cast(OobleckVAE, randomised(OobleckVAE(config, device=context.torch_device, dtype=dtype), gain=0.5))


@check("vae.round_trip", "nano's audio through the VAE and back", 10)
def round_trip(context: Context) -> Iterator[Line]:
    model = context.nano(dtype="auto")
    waveform = decode(model, context.reference_latents[:, :SHORT])
    expected = encode_audio(context.reference, waveform, 48_000)
    found = encode_audio(model, waveform, 48_000)
    decibels = 20 * math.log10(max(relative_rms(found, expected), 1e-9))
    bound = 20 * math.log10(rounding_bound(torch.float16, VAE_ROUNDINGS, 1))
    yield at_most("encoded on the device and on the CPU", decibels, bound, "dB")
