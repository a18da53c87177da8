"""Seconds of each stage against diffusers, the planner against the memory's bandwidth, launches of a step."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from acestep_core.planner.load_planner import Planner
from acestep_core.planner.vocabulary import Vocabulary
from acestep_core.runtime.devices import pick_dtype
from acestep_core.runtime.placement import Resident
from acestep_core.sampling.velocity import network_velocity
from benchmarks import planner as planner_benchmark
from benchmarks import stages as stage_benchmark
from benchmarks.stages import Networks, Size

from .context import Context
from .networks import build_model, draw, randomised
from .registry import Line, NotHere, at_most, check, measured, not_run, shown


@check("speed.launches", "kernels that the host launches for one sampling step, and how often it waits", 30)
def launches(context: Context) -> Iterator[Line]:
    shape, device = context.shapes[0], context.torch_device
    with torch.inference_mode():
        network = randomised(build_model(shape.network, device, context.dtype))
        condition, source = draw(1, 90, shape.network.encoder_hidden_size), draw(1, 128, 128)
        for graphs in (False, True) if context.device.has_graphs else (False,):
            velocity = network_velocity(
                network,  # type: ignore[arg-type]
                [condition.to(device, context.dtype)],
                source.to(device),
                guided=False,
                graphs=graphs,
            )
            x = draw(1, 128, 64).to(device)
            for _ in range(3):
                velocity(x, 0.7, False)
            counted, waits = context.device.count_launches(lambda velocity=velocity, x=x: velocity(x, 0.7, False))
            label = "with CUDA graphs" if graphs else "without CUDA graphs"
            yield measured(f"{shape.name}, {label}", float(counted), "launches")
            if graphs:
                yield at_most(f"{shape.name}, {label}", float(counted), 12, "launches")
            # With graphs, the host waits for the step before, so that progress and a stop are prompt.
            yield at_most(f"{shape.name}, {label}: the host waits", float(waits), 1 if graphs else 0, "times")


@check("speed.stages", "seconds of each stage, ours and diffusers'", 150)
def stages(context: Context) -> Iterator[Line]:
    shape, device = context.shapes[0], context.device
    peers = importlib.util.find_spec("diffusers") is not None
    if not peers:
        yield not_run("diffusers", "diffusers is not installed: pip install diffusers")
    elif (free := device.free_bytes()) is not None and free < 20 * 2**30 and not context.quick:
        peers = False
        yield not_run("diffusers", f"its networks need 20 GiB, and {shown(free, 'B')} are free")
    size = Size(shape.network, shape.text, shape.vae)
    networks = Networks(size, str(device.torch), context.dtype, pick_dtype(device.torch, "vae"), peers=peers)
    with torch.inference_mode():
        for seconds in (2, 4) if context.quick else (30, 120, 240, 600):
            for stage, sides in stage_benchmark.stages(networks, seconds, False).items():
                times = {side: _seconds(context, run) for side, run in sides.items()}
                yield _compared(f"{shape.name}, {stage}, {seconds} s of music", times)


def _compared(what: str, times: dict[str, float]) -> Line:
    ours, peer = times["ours"], times.get("diffusers")
    return measured(
        what, ours, "s", "" if peer is None else f"diffusers {shown(peer, 's')}, {peer / ours:.2f} times ours"
    )


def _seconds(context: Context, run: Callable[[], object]) -> float:
    """Return the faster of two runs, after one for the warm-up."""
    times = []
    for _ in range(1 if context.quick else 3):
        started = time.perf_counter()
        run()
        context.device.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:] or times)


@check("speed.planner", "planner tokens a second, and their share of what the memory's bandwidth allows", 60)
def planner(context: Context) -> Iterator[Line]:
    device, codes = context.torch_device, 8 if context.quick else 120
    for name in ("tiny",) if context.quick else ("0.6b", "1.7b"):
        config = planner_benchmark.SIZES[name]
        if context.quick:
            config = replace(context.shapes[0].planner, max_position_embeddings=2048)
        network = planner_benchmark.ours(config, device, context.dtype)
        vocabulary = Vocabulary(None, {}, config.audio_base, config.audio_codes)  # type: ignore[arg-type]
        placed = Planner(network, vocabulary, Resident(device))
        seconds = planner_benchmark.token_seconds(placed, planner_benchmark.some_rows(1, codes))
        yield measured(f"{name}, one song, guided", 1 / max(seconds, 1e-9), "tokens/s")
        if device.type == "cuda":
            speed = planner_benchmark.bandwidth(device, size=2**20 if context.quick else 2**30)
            limit = speed / planner_benchmark.token_bytes(network, 1, codes)
            share = f"{1 / seconds / limit:.0%} of {limit:,.0f} tokens/s at {speed / 1e9:,.0f} GB/s"
            yield measured(f"{name}, share of the bandwidth", share)
    if device.type != "cuda":
        raise NotHere(f"share of the bandwidth: measured on CUDA devices only, and this is {device}")
