"""Storage and compute dtypes, on hardware with and without bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management as mm
import torch
from pack_under_test.acestep_core.models.oobleck import OobleckVAE
from pack_under_test.nodes.comfy_runtime import precision
from pack_under_test.nodes.comfy_runtime.ops import comfy_ops
from pack_under_test.nodes.comfy_runtime.precision import network_dtypes

from .odd_inputs import refusal
from .world import World, difference, network_of, similarity

MANY = 2_400_000_000
BF16, F16, F32, FP8 = torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn


@contextmanager
def hardware(bfloat16: bool) -> Iterator[None]:
    usual = precision.has_bfloat16
    precision.has_bfloat16 = lambda device: bfloat16
    try:
        yield
    finally:
        precision.has_bfloat16 = usual


def check_bfloat16_is_the_compute_dtype_if_the_hardware_has_it(world: World) -> None:
    for has, compute in ((True, BF16), (False, F32)):
        with hardware(has):
            assert network_dtypes("bfloat16", MANY) == (BF16, compute)
            assert network_dtypes("float32", MANY) == network_dtypes("auto", MANY) == (F32, F32)
            assert network_dtypes("fp8_e4m3fn", MANY) == (FP8, F32)


def check_a_model_too_large_for_float32_is_stored_in_bfloat16(world: World) -> None:
    """As ComfyUI decides on an older GPU of 8 GB."""
    usual, mm.should_use_bf16 = (
        mm.should_use_bf16,
        lambda device=None, model_params=0, manual_cast=False, **_: manual_cast and 4 * model_params > 6e9,
    )
    try:
        assert network_dtypes("auto", MANY) == (BF16, F32)
        assert network_dtypes("auto", 10_000_000) == (F32, F32)
    finally:
        mm.should_use_bf16 = usual


def check_turing_computes_in_float16(world: World) -> None:
    """Except for the condition encoder and the text encoder, which exceed its range."""
    usual = precision.has_fast_float16, mm.should_use_fp16, mm.should_use_bf16
    precision.has_fast_float16 = lambda device: True
    mm.should_use_fp16 = lambda *_, **__: True
    mm.should_use_bf16 = lambda *_, **__: False
    try:
        assert network_dtypes("auto", MANY) == (F16, F16)
        assert network_dtypes("fp8_e4m3fn", MANY) == (FP8, F16)
        assert network_dtypes("float32", MANY) == (F32, F32)
        assert precision.encoder_dtype(F16) == precision.text_encoder_dtype() == F32
        assert precision.planner_dtypes("auto", mm.get_torch_device()) == (None, F16)
        assert precision.planner_dtypes("int8", mm.get_torch_device()) == (torch.int8, F16)
    finally:
        precision.has_fast_float16, mm.should_use_fp16, mm.should_use_bf16 = usual


def check_fp8_is_refused_on_devices_without_it(world: World) -> None:
    usual, mm.supports_cast = mm.supports_cast, lambda device, dtype: dtype != FP8
    try:
        assert "does not support fp8" in refusal(lambda: network_dtypes("fp8_e4m3fn", MANY))
        assert network_dtypes("float32", MANY) == (F32, F32)
    finally:
        mm.supports_cast = usual


def check_force_fp32_wins(world: World) -> None:
    usual, mm.FORCE_FP32 = mm.FORCE_FP32, True
    try:
        with hardware(bfloat16=True):
            assert network_dtypes("bfloat16", MANY) == (BF16, F32)
    finally:
        mm.FORCE_FP32 = usual


def check_a_song_in_bfloat16_is_close_to_float32(world: World) -> None:
    ours, theirs = world.sample(), world.ksample()
    for has, compute in ((True, BF16), (False, F32)):
        with hardware(has):
            model, _, _ = world.load("bfloat16")
        network = network_of(model)
        assert {parameter.dtype for parameter in network.decoder.layers.parameters()} == {BF16} or not has
        assert network.decoder.layers[0].mlp.up_proj.weight.dtype == BF16
        assert network.decoder.dtype == network.encoder.dtype == model.model.get_dtype() == compute
        for song, exact in ((world.sample(model), ours), (world.ksample(model), theirs)):
            assert similarity(song, exact) > 0.97
            assert not has or difference(song, exact) > 0


def check_the_vae_is_in_float16_if_comfyui_supports_it(world: World) -> None:
    usual = mm.should_use_fp16, mm.should_use_bf16
    try:
        for half, bfloat16, dtype in ((True, True, torch.float16), (False, True, BF16), (False, False, F32)):
            mm.should_use_fp16, mm.should_use_bf16 = (lambda *_, has=has, **__: has for has in (half, bfloat16))
            assert precision.vae_dtype() == dtype
    finally:
        mm.should_use_fp16, mm.should_use_bf16 = usual


def check_overflows_of_float16_are_recomputed_in_comfyuis_layers(world: World) -> None:
    _, _, vae = world.load()
    exact = vae.first_stage_model
    latents = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0))
    half = OobleckVAE(exact.config, ops=comfy_ops(torch.float16, torch.float16)).requires_grad_(False)
    half.load_state_dict(exact.state_dict())
    half.decoder.conv1.weight.mul_(1e5).clamp_(-6e4, 6e4)
    half.half()
    full = OobleckVAE(exact.config)
    full.load_state_dict({name: value.float() for name, value in half.state_dict().items()})
    before = {name: value.clone() for name, value in half.state_dict().items()}
    for cast in (False, True):
        for module in half.modules():
            if hasattr(module, "comfy_cast_weights"):
                module.comfy_cast_weights = cast
        with torch.no_grad():
            decoded = half.decode(latents)
            assert torch.allclose(decoded, full.decode(latents), rtol=1e-3, atol=1e-3 * decoded.abs().max())
        assert all(torch.equal(value, before[name]) for name, value in half.state_dict().items())
