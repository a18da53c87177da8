"""Estimate the device memory of a song by setting, without a device.

    python -m benchmarks.memory                     a song of 4 minutes, 2B model, bfloat16: half a minute
    python -m benchmarks.memory --seconds 600 --guidance --dtype float32 --size xl
    python -m benchmarks.memory --training --seconds 30     a step of training

This estimate stays because the README and the help pages quote its peaks, and a test compares them.

Weights are the sizes of the tensors that a setting has on the device at one time. Activations are the tensors that
are alive at one time while the real code runs on the meta device (`meter.py`). The scratch memory of kernels and the
driver's share are missing.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import dataclass
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_core.config import FRAME_RATE, ModelConfig, TextEncoderConfig, VAEConfig
from acestep_core.models.layers import LayerStack
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.ops import CastLinear, QuantizedLinear, quantized_ops
from acestep_core.runtime.placement import tensors_of
from acestep_core.text.encoder import build_qwen3
from acestep_core.train.flow_loss import flow_loss, recomputed_layers
from acestep_core.train.train_settings import TrainSettings
from acestep_core.train.trainable import make_trainable

from .common import log_progress, megabytes, table
from .dit_step import SIZES
from .meter import Meter, metered

LYRIC_ROWS, CAPTION_ROWS = 2048, 256  # the limits of the prompts
TILE_FRAMES = 512  # of pipeline.decode, overlaps included
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Setting:
    name: str
    storage: str | None = None
    offload: bool = False
    stream: bool = False


SETTINGS = (
    Setting("all on the device"),
    Setting("--offload", offload=True),
    Setting("--offload --storage int8", "int8", offload=True),
    Setting("--stream", stream=True),
    # ComfyUI offloads unused networks as soon as it needs the memory.
    Setting("ComfyUI, fp8_e4m3fn", "fp8_e4m3fn", offload=True),
)


class _Fp8Ops:
    """ComfyUI's fp8 layers: no scales, and a cast of each matrix at each use."""

    Linear, Embedding, Conv1d, ConvTranspose1d = nn.Linear, nn.Embedding, nn.Conv1d, nn.ConvTranspose1d

    class layers:
        Linear = CastLinear


def weight_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in tensors_of(module))


def streamed_weight_bytes(module: nn.Module) -> int:
    """Return the bytes that `streaming.Stream` has on the device: two layers of the widest stack and all non-layers."""
    stacks = [part for part in module.modules() if isinstance(part, LayerStack)]
    two_layers = max((sum(sorted(map(weight_bytes, stack))[-2:]) for stack in stacks), default=0)
    return weight_bytes(module) - sum(map(weight_bytes, stacks)) + two_layers


def build_network(config: ModelConfig, dtype: torch.dtype, storage: str | None) -> AceStepModel:
    """Build the network on the meta device, with its layers in the storage dtype."""
    ops = {None: nn, "int8": quantized_ops(torch.int8), "fp8_e4m3fn": _Fp8Ops}[storage]
    network = AceStepModel(config, ops, "meta", dtype, encoder_ops=nn).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, QuantizedLinear):
            module.store(module.weight)
        elif isinstance(module, CastLinear):
            module.to(torch.float8_e4m3fn)
    return network


def encoding_bytes(text_encoder: nn.Module) -> int:
    """Return the peak of activations of the text encoder."""
    with metered() as meter:
        tokens = torch.zeros(1, CAPTION_ROWS, dtype=torch.long, device="meta")
        text_encoder.get_input_embeddings()(torch.zeros(1, LYRIC_ROWS, dtype=torch.long, device="meta"))
        # With a mask of None, transformers does not inspect the tokens, which have no values here.
        text_encoder(input_ids=tokens, attention_mask={"full_attention": None}, use_cache=False)
    return meter.peak


def sampling_bytes(model: AceStepModel, seconds: int, guided: bool) -> int:
    """Return the peak of activations of the condition encoder, the prepared constants, and one step of the loop."""
    config, dtype, frames = model.config, model.decoder.dtype, seconds * FRAME_RATE
    with metered() as meter:
        text = torch.empty(1, CAPTION_ROWS, config.text_hidden_dim, dtype=dtype, device="meta")
        lyrics = torch.empty(1, LYRIC_ROWS, config.text_hidden_dim, dtype=dtype, device="meta")
        timbre = torch.empty(1, 1, config.timbre_fix_frame, config.timbre_hidden_dim, device="meta")
        condition = model.encoder(text, lyrics, timbre)
        context = torch.empty(1, frames, 2 * config.audio_acoustic_hidden_dim, device="meta")
        null = model.null_condition_emb if guided else None
        prepared = model.decoder.prepare(context, condition, None, null)
        x = torch.empty(1, frames, config.audio_acoustic_hidden_dim, device="meta")
        # The loop also has the velocity, the clean estimate and the state of guidance.
        loop = [torch.empty_like(x) for _ in range(8)]
        model(torch.cat((x, x)) if guided else x, torch.ones(1, device="meta"), prepared)
        del loop
    return meter.peak


def decoding_bytes(vae: OobleckVAE) -> int:
    """Return the peak of activations of one tile."""
    with metered() as meter:
        vae.decode(torch.empty(1, TILE_FRAMES, vae.config.decoder_input_channels, device="meta"))
    return meter.peak


class _FusedAttention(torch.autograd.Function):
    """Attention as a fused kernel, whose gradient needs its inputs and its result. The values are unset."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device=query.device)
        ctx.save_for_backward(query, key, value, result)
        return result

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.empty_like, ctx.saved_tensors[:3]))


def training_bytes(model: AceStepModel, seconds: int, recompute: bool, settings: TrainSettings) -> tuple[int, int]:
    """Return the bytes of the transformer, factors and optimiser, and the other bytes of a step with one crop."""
    trainable = make_trainable(model, settings)
    model.silence_latent = torch.empty(1, 1, 64, device="meta")
    data = torch.empty(1, seconds * FRAME_RATE, 64, device="meta")
    rows = torch.empty(
        1, CAPTION_ROWS + LYRIC_ROWS + 1, model.config.encoder_hidden_size, dtype=model.decoder.dtype, device="meta"
    )
    owned = [*tensors_of(model.decoder), *trainable.parameters()]
    with Meter() as meter, ExitStack() as stack:
        meter.add(owned)  # results that are views of them are no new memory
        before = meter.now
        stack.enter_context(
            mock.patch.object(F, "scaled_dot_product_attention", lambda q, k, v, **_: _FusedAttention.apply(q, k, v))
        )
        stack.enter_context(trainable.attached())
        if recompute:
            stack.enter_context(recomputed_layers(model))
        flow_loss(model, data, [rows], torch.empty_like(data), torch.empty(1, device="meta")).backward()
    moments = 2 * sum(parameter.nbytes for parameter in trainable.parameters())
    return before + moments, meter.peak - before


def estimate_training(config: ModelConfig, dtype: torch.dtype, seconds: int) -> list[list[str]]:
    """Return the rows of the table of training."""
    rows = []
    for storage, recompute, modules in (
        (None, False, "attention"), (None, True, "attention"), ("int8", True, "attention"), ("int8", True, "all"),
    ):  # fmt: skip
        model = build_network(config, dtype, storage)
        weights, activations = training_bytes(model, seconds, recompute, TrainSettings(modules=modules))
        name = " ".join(["--storage int8"] * (storage is not None) + [f"--{'' if recompute else 'no-'}recompute"])
        name += " --modules all" * (modules == "all")
        rows.append([name, f"{(weights + activations) / 1e9:.1f} GB", megabytes(weights), megabytes(activations)])
    return rows


def estimate(config: ModelConfig, dtype: torch.dtype, seconds: int, guided: bool) -> list[list[str]]:
    """Return the rows of the table."""
    text_encoder = build_qwen3(TextEncoderConfig(), "meta", dtype).eval()
    vae = OobleckVAE(VAEConfig(), device="meta", dtype=dtype)
    activations = {"encode": encoding_bytes(text_encoder), "decode": decoding_bytes(vae)}
    rows = []
    for setting in SETTINGS:
        log_progress(f"Estimating {setting.name}")
        model = build_network(config, dtype, setting.storage)
        activations["sample"] = sampling_bytes(model, seconds, guided)
        model_bytes = streamed_weight_bytes(model) if setting.stream else weight_bytes(model)
        weights = {"encode": weight_bytes(text_encoder), "sample": model_bytes, "decode": weight_bytes(vae)}
        if not (setting.offload or setting.stream):
            weights = dict.fromkeys(weights, sum(weights.values()))
        totals = {stage: weights[stage] + activations[stage] for stage in weights}
        peak = max(totals, key=lambda stage: totals[stage])
        cells = [f"{megabytes(weights[stage])} + {megabytes(activations[stage])}" for stage in totals]
        rows.append([setting.name, f"{totals[peak] / 1e9:.2f} GB", peak, *cells])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="2b")
    parser.add_argument("--seconds", type=int, default=240)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16")
    parser.add_argument("--guidance", action="store_true", help="conditional and unconditional rows")
    parser.add_argument("--training", action="store_true", help="a step of training instead of a song")
    args = parser.parse_args()
    if args.training:
        rows = estimate_training(SIZES[args.size], DTYPES[args.dtype], args.seconds)
        title = f"Device memory of a step of training (estimated), {args.size} model, {args.seconds} s, {args.dtype}"
        print(table(title, ["options", "peak", "transformer, factors, optimiser", "activations, gradients"], rows))
        return
    rows = estimate(SIZES[args.size], DTYPES[args.dtype], args.seconds, args.guidance)
    guided = ", guided" if args.guidance else ""
    title = f"Device memory (estimated), {args.size} model, {args.seconds} s of music, {args.dtype}{guided}"
    header = ["setting", "peak", "in", "encode: weights + activations", "sample", "decode, a tile of 20 s"]
    print(table(title, header, rows))


if __name__ == "__main__":
    main()
