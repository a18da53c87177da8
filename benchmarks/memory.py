"""Device memory of a song with the 2B model, by setting, counted without a device.

    python -m benchmarks.memory                     a song of 4 minutes, bfloat16
    python -m benchmarks.memory --seconds 600 --guidance --dtype float32 --size xl
    python -m benchmarks.memory --check             the meter against the resident set of a real step, on this CPU

Weights: the sizes of the network's tensors, built at full width on the meta device, by what a setting has on the device
at one time. Activations: the same code as a song, at full width and length, on the meta device, every tensor counted
while it lives (see meter.py); kernels' scratch memory and what a driver keeps for itself are not in it.
"""

from __future__ import annotations

import argparse
import gc
import json
from dataclasses import dataclass

import torch
from torch import nn

from acestep_core.config import FRAME_RATE, ModelConfig, TextEncoderConfig, VAEConfig
from acestep_core.models.layers import LayerStack
from acestep_core.models.model import AceStepModel
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.ops import CastLinear, QuantizedLinear, quantized_ops
from acestep_core.runtime.options import STORAGE
from acestep_core.runtime.placement import tensors_of

from .common import PeakMemory, in_child, megabytes, table
from .dit_step import SIZES, our_step, ours
from .meter import metered

LYRIC_ROWS, CAPTION_ROWS = 2048, 256  # the longest that are read
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
    Setting("--stream --storage int8", "int8", stream=True),
    # ComfyUI takes away what is not in use once it needs the room: then it is as with --offload.
    Setting("ComfyUI, fp8_e4m3fn", "fp8_e4m3fn", offload=True),
)


class _CastOps:
    """As ComfyUI keeps the layers in fp8: without factors, each matrix cast at each use."""

    Linear, Embedding, Conv1d, ConvTranspose1d = nn.Linear, nn.Embedding, nn.Conv1d, nn.ConvTranspose1d

    class layers:
        Linear = CastLinear


def size(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in tensors_of(module))


def streamed_size(module: nn.Module) -> int:
    """What `streaming.Stream` has on the device at once: two layers of the widest stack, and all that is no layer."""
    stacks = [part for part in module.modules() if isinstance(part, LayerStack)]
    at_once = max((sum(sorted(map(size, stack))[-2:]) for stack in stacks), default=0)
    return size(module) - sum(map(size, stacks)) + at_once


def network(config: ModelConfig, dtype: torch.dtype, storage: str | None) -> AceStepModel:
    ops = quantized_ops(STORAGE[storage]) if storage in STORAGE else nn if storage is None else _CastOps
    made = AceStepModel(config, ops, "meta", dtype, encoder_ops=nn).eval().requires_grad_(False)
    for module in made.modules():
        if isinstance(module, QuantizedLinear):
            module.store(module.weight)
        elif isinstance(module, CastLinear):
            module.to(torch.float8_e4m3fn)
    return made


def sampling(model: AceStepModel, seconds: int, guided: bool) -> int:
    """Bytes beside the weights: the condition encoder, what all steps share, and a step with the loop's latents."""
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
        # Beside x the loop holds its velocity, the clean estimate, and a guidance its momentum and their like.
        loop = [torch.empty_like(x) for _ in range(8)]
        model(torch.cat((x, x)) if guided else x, torch.ones(1, device="meta"), prepared)
        del loop
    return meter.peak


def tile(vae: OobleckVAE) -> int:
    with metered() as meter:
        vae.decode(torch.empty(1, TILE_FRAMES, vae.config.decoder_input_channels, device="meta"))
    return meter.peak


def reading(module: nn.Module) -> int:
    """The text encoder over a prompt."""
    with metered() as meter:
        tokens = torch.zeros(1, CAPTION_ROWS, dtype=torch.long, device="meta")
        module.get_input_embeddings()(torch.zeros(1, LYRIC_ROWS, dtype=torch.long, device="meta"))
        # Of one prompt nothing is masked; told so, transformers does not look into the tokens, of which there are none.
        module(input_ids=tokens, attention_mask={"full_attention": None}, use_cache=False)
    return meter.peak


def measure(config: ModelConfig, dtype: torch.dtype, seconds: int, guided: bool) -> list[list[str]]:
    from acestep_core.text.encoder import build_qwen3

    text, vae = (
        build_qwen3(TextEncoderConfig(), "meta", dtype).eval(),
        OobleckVAE(VAEConfig(), device="meta", dtype=dtype),
    )
    encode, decode, rows = reading(text), tile(vae), []
    for setting in SETTINGS:
        model = network(config, dtype, setting.storage)
        alone = streamed_size if setting.stream else size
        weights = {"encode": size(text), "sample": alone(model), "decode": size(vae)}
        if not (setting.offload or setting.stream):
            weights = dict.fromkeys(weights, size(text) + size(model) + size(vae))
        activations = {"encode": encode, "sample": sampling(model, seconds, guided), "decode": decode}
        totals = {stage: weights[stage] + activations[stage] for stage in weights}
        cells = [f"{megabytes(weights[s])} + {megabytes(activations[s])}" for s in totals]
        rows.append([setting.name, f"{max(totals.values()) / 1e9:.2f} GB", max(totals, key=totals.get), *cells])
    return rows


def check(seconds: int) -> str:
    """One step of the small model: what the meter counts, and by how much the process grew when it was computed, told
    to give back at once what it has freed (the C library would keep it for later)."""
    returning = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    config, rows = SIZES["small"], []
    for length in (seconds // 2, seconds):
        model = ours(config, torch.float32).to("meta")
        with torch.device("meta"), torch.inference_mode():
            step = our_step(config, model, length, torch.float32)
            with metered() as meter:
                step()
        grown = in_child(__spec__.name, "--grown", str(length), **returning)["peak"]
        rows.append([f"{length} s", megabytes(meter.peak), megabytes(grown), f"{grown / meter.peak:.2f}"])
    title = "A step of the small model in float32: the meter and the resident set"
    return table(title, ["music", "metered", "grown by", "ratio"], rows)


def grown(seconds: int) -> int:
    config = SIZES["small"]
    with torch.inference_mode():
        step = our_step(config, ours(config, torch.float32), seconds, torch.float32)
        gc.collect()
        with PeakMemory() as memory:
            step()
    return memory.peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="2b")
    parser.add_argument("--seconds", type=int, default=240)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16")
    parser.add_argument("--guidance", action="store_true", help="steps of both halves at once, as with base and sft")
    parser.add_argument("--check", action="store_true", help="the meter against a real step on this CPU")
    parser.add_argument("--grown", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.grown:
        print(json.dumps({"peak": grown(args.grown)}))
    elif args.check:
        print(check(args.seconds))
    else:
        rows = measure(SIZES[args.size], DTYPES[args.dtype], args.seconds, args.guidance)
        halves = ", guided" if args.guidance else ""
        title = f"Device memory, {args.size} model, {args.seconds} s of music, {args.dtype}{halves}"
        header = ["setting", "peak", "in", "encode: weights + activations", "sample", "decode, a tile of 20 s"]
        print(table(title, header, rows))


if __name__ == "__main__":
    main()
