"""One DiT step against diffusers on the same weights, threads and dtype, at several lengths of music.

    python -m benchmarks.dit_step                  small model, float32, about four minutes on two cores
    python -m benchmarks.dit_step --size 2b --dtype bfloat16 --seconds 30 120
    python -m benchmarks.dit_step --size 2b --seconds 30 120 600 --once         if a step takes minutes
    python -m benchmarks.dit_step --size 2b --seconds 30 120 600 --layers 2     a twelfth of the time

Times are medians of alternating runs. With --once they are of a single step in the fresh process that measures memory,
after a short one. Memory is the growth of the resident set during one step, each in a fresh process.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from dataclasses import replace

import torch

from acestep_core.checkpoints.diffusers_keys import to_diffusers
from acestep_core.config import FRAME_RATE, ModelConfig
from acestep_core.models.cpu.plugins import install_cpu_plugins
from acestep_core.models.dit import DiT

from .common import PeakMemory, alternate, in_child, log_progress, megabytes, table

CONDITION_ROWS = 300  # a verse and a chorus, caption, timbre
SIZES = {
    "small": ModelConfig(
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        encoder_hidden_size=512,
    ),
    "2b": ModelConfig(),
    "xl": ModelConfig(hidden_size=2560, intermediate_size=9728, num_hidden_layers=32, num_attention_heads=32),
}


def ours(config: ModelConfig, dtype: torch.dtype) -> DiT:
    torch.manual_seed(0)
    model = DiT(config, dtype=dtype, device="cpu").eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02)
    install_cpu_plugins(model, torch.device("cpu"))
    return model


def theirs(config: ModelConfig, model: DiT):
    """Return diffusers' transformer with our tensors."""
    from diffusers import AceStepTransformer1DModel

    with torch.device("meta"):
        peer = AceStepTransformer1DModel(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            encoder_hidden_size=config.encoder_hidden_size,
        )
    state = {to_diffusers(f"decoder.{name}")[1]: tensor for name, tensor in model.state_dict().items()}
    peer.load_state_dict(state, assign=True)
    return peer.eval()


def inputs(config: ModelConfig, seconds: int, dtype: torch.dtype):
    frames = seconds * FRAME_RATE
    context = torch.randn(1, frames, 128)
    condition = torch.randn(1, CONDITION_ROWS, config.encoder_hidden_size, dtype=dtype)
    return torch.randn(1, frames, 64), context, condition, torch.tensor([0.7])


def our_step(config: ModelConfig, model: DiT, seconds: int, dtype: torch.dtype):
    x, context, condition, t = inputs(config, seconds, dtype)
    prepared = model.prepare(context.to(dtype), condition, None, None)
    return lambda: model(x, t, prepared)


def their_step(config: ModelConfig, peer, seconds: int, dtype: torch.dtype):
    x, context, condition, t = inputs(config, seconds, dtype)
    x, t, context = x.to(dtype), t.to(dtype), context.to(dtype)
    return lambda: peer(x, t, t, condition, context, return_dict=False)[0]


def alone(candidate: str, config: ModelConfig, seconds: int, dtype: torch.dtype) -> dict[str, float]:
    """Return seconds and bytes of one step."""
    network, step_of = ours(config, dtype), our_step
    if candidate != "ours":
        network, step_of = theirs(config, network), their_step
    step = step_of(config, network, seconds, dtype)
    with torch.inference_mode():
        step_of(config, network, 1, dtype)()
        gc.collect()
        with PeakMemory() as memory:
            started = time.perf_counter()
            step()
            seconds_taken = time.perf_counter() - started
    return {"peak": memory.peak, "seconds": seconds_taken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 60, 120, 600])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--once", action="store_true", help="a single step of each, in a fresh process")
    parser.add_argument("--layers", type=int, help="number of layers, even for the full receptive field; default all")
    parser.add_argument("--alone", choices=["ours", "diffusers"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    dtype, config = getattr(torch, args.dtype), SIZES[args.size]
    if args.layers:
        config = replace(config, num_hidden_layers=args.layers)
    if args.alone:
        print(json.dumps(alone(args.alone, config, args.seconds[0], dtype)))
        return

    if not args.once:
        model = ours(config, dtype)
        peer = theirs(config, model)
    rows = []
    with torch.inference_mode():
        for seconds in args.seconds:
            options = ["--size", args.size, "--dtype", args.dtype, "--seconds", str(seconds)]
            options += ["--layers", str(args.layers)] if args.layers else []
            results = {}
            for name in ("ours", "diffusers"):
                log_progress(f"{seconds} s of music: memory of {name}")
                results[name] = in_child(__spec__.name, "--alone", name, *options)
            peaks, timed = ({name: each[key] for name, each in results.items()} for key in ("peak", "seconds"))
            if not args.once:
                log_progress(f"{seconds} s of music: time, {args.runs} runs of each after an untimed one")
                steps = (our_step(config, model, seconds, dtype), their_step(config, peer, seconds, dtype))
                timed = alternate(dict(zip(results, steps, strict=True)), args.runs)
            rows.append(
                [
                    f"{seconds} s",
                    f"{timed['diffusers'] / timed['ours']:.2f}×",
                    f"{peaks['diffusers'] / peaks['ours']:.1f}×",
                    f"{timed['ours'] * 1e3:.0f} ms",
                    f"{timed['diffusers'] * 1e3:.0f} ms",
                    megabytes(peaks["ours"]),
                    megabytes(peaks["diffusers"]),
                ]
            )
    print(
        table(
            f"DiT step, {args.size} model, {config.num_hidden_layers} layers, {args.dtype}",
            ["music", "faster than diffusers", "less memory", "ours", "diffusers", "ours, peak", "diffusers, peak"],
            rows,
        )
    )


if __name__ == "__main__":
    main()
