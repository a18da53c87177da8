"""Oobleck at its real size: decode and encode against diffusers, time and peak memory.

    python -m benchmarks.vae                       5 s of music, about four minutes on two cores
    python -m benchmarks.vae --seconds 10 30 --runs 3
    python -m benchmarks.vae --accuracy            errors of the CPU plug-in and of half precision, 3 s of noise

Each candidate runs alone in a fresh process: once untimed, then --runs times, of which the median is shown. Memory is
the growth of the resident set over all runs. Weights are random.
"""

from __future__ import annotations

import argparse
import copy
import json
import time

import torch
from torch import Tensor

from acestep_core.config import FRAME_RATE, SAMPLE_RATE, VAEConfig
from acestep_core.models.cpu.plugins import install_cpu_plugins
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.tiling import decode_tiled, encode_tiled
from acestep_core.runtime.devices import has_bfloat16

from .common import PeakMemory, in_child, log_progress, megabytes, table

CPU = torch.device("cpu")
CANDIDATES = ["ours, tiled", "ours, whole", "diffusers, tiled", "diffusers, whole"]
if has_bfloat16(CPU):  # emulated, it takes minutes
    CANDIDATES.append("diffusers, bfloat16, whole")


def our_vae(plugins: bool = True) -> OobleckVAE:
    torch.manual_seed(0)
    vae = OobleckVAE(VAEConfig()).eval()
    if plugins:
        install_cpu_plugins(vae, CPU)
    return vae


def their_vae(tiled: bool):
    from diffusers import AutoencoderOobleck

    vae = AutoencoderOobleck(
        encoder_hidden_size=128,
        downsampling_ratios=[2, 4, 4, 6, 10],
        channel_multiples=[1, 2, 4, 8, 16],
        decoder_channels=128,
        decoder_input_channels=64,
        audio_channels=2,
        sampling_rate=SAMPLE_RATE,
    ).eval()
    if tiled:
        vae.enable_tiling()
    return vae


def some_inputs(seconds: int) -> tuple[Tensor, Tensor]:
    return torch.randn(1, seconds * FRAME_RATE, 64), torch.rand(1, 2, seconds * SAMPLE_RATE) * 2 - 1


def measure(candidate: str, job: str, seconds: int, runs: int) -> dict[str, float]:
    latents, waveform = some_inputs(seconds)
    tiled = candidate.endswith("tiled")
    if candidate.startswith("ours"):
        vae = our_vae()
        decode = (lambda: decode_tiled(vae, latents)) if tiled else (lambda: vae.decode(latents))
        encode = (lambda: encode_tiled(vae, waveform)) if tiled else (lambda: vae.encode(waveform))
    else:
        vae = their_vae(tiled)
        if "bfloat16" in candidate:
            vae, latents, waveform = vae.bfloat16(), latents.bfloat16(), waveform.bfloat16()
        decode = lambda: vae.decode(latents.transpose(1, 2)).sample  # noqa: E731
        encode = lambda: vae.encode(waveform).latent_dist.mean  # noqa: E731
    run = decode if job == "decode" else encode
    times = []
    with torch.inference_mode(), PeakMemory() as memory:
        run()
        for _ in range(runs):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
    return {"seconds": sorted(times)[len(times) // 2], "peak": memory.peak}


def accuracy(vae: OobleckVAE, latents: Tensor, waveform: Tensor) -> list[tuple[str, str, float, float | None]]:
    """Return job, candidate, and its errors in dB against the plain layers in float64 and in float32.

    vae: one without plug-ins, in float32 on a CPU.
    """
    exact, fast_vae = copy.deepcopy(vae).double(), copy.deepcopy(vae)
    install_cpu_plugins(fast_vae, CPU)
    rows: list[tuple[str, str, float, float | None]] = []
    for job, x in (("decode", latents), ("encode", waveform)):
        fast, double, single = (layers(network, job, x) for network in (fast_vae, exact, vae))
        rows += [
            (job, "CPU plug-in, float32", decibels(fast, double), decibels(fast, single)),
            (job, "layers, float32", decibels(single, double), None),
        ]
        for name in ("float16", "bfloat16"):
            coarse = layers(copy.deepcopy(vae).to(getattr(torch, name)), job, x)
            rows.append((job, f"layers, {name}", decibels(coarse, double), decibels(coarse, single)))
    return rows


def layers(vae: OobleckVAE, job: str, x: Tensor) -> Tensor:
    """Run the decoder or encoder in the dtype of its weights, without the repetition in float32."""
    if job == "decode":
        return vae.decoder(x.to(vae.dtype).transpose(1, 2))
    return vae.encoder(x.to(vae.dtype)).chunk(2, dim=1)[0].transpose(1, 2)


def decibels(result: Tensor, expected: Tensor) -> float:
    """Return the power of the error over that of `expected`."""
    result, expected = result.double(), expected.double()
    return 10 * float(((result - expected).square().mean() / expected.square().mean()).log10())


def accuracy_table(seconds: int) -> str:
    log_progress(f"computing {seconds} s in four ways, float64 among them")
    with torch.inference_mode():
        results = accuracy(our_vae(plugins=False), *some_inputs(seconds))
    rows = [[job, name, *("" if db is None else f"{db:.1f} dB" for db in errors)] for job, name, *errors in results]
    return table(
        f"VAE error, real Oobleck, {seconds} s of noise",
        ["job", "candidate", "against the layers in float64", "in float32"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, nargs="+", default=[5])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument(
        "--accuracy", type=int, nargs="?", const=3, metavar="SECONDS", help="only the errors, in dB; float64 is slow"
    )
    parser.add_argument("--one", nargs=2, metavar=("CANDIDATE", "JOB"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.accuracy:
        print(accuracy_table(args.accuracy))
        return
    if args.one:
        print(json.dumps(measure(*args.one, args.seconds[0], args.runs)))
        return
    for job in ("decode", "encode"):
        rows = []
        for seconds in args.seconds:
            options = ["--seconds", str(seconds), "--runs", str(args.runs)]
            results = {}
            for name in CANDIDATES:
                log_progress(f"{job} {seconds} s: {name}")
                results[name] = in_child(__spec__.name, "--one", name, job, *options)
            base = results["diffusers, tiled"]
            rows += [
                [
                    f"{seconds} s",
                    name,
                    f"{base['seconds'] / r['seconds']:.2f}×",
                    f"{base['peak'] / r['peak']:.1f}×",
                    f"{r['seconds']:.1f} s",
                    megabytes(r["peak"]),
                ]
                for name, r in results.items()
            ]
        print(
            table(
                f"VAE {job}, real Oobleck (168.7 M parameters), float32 unless said; "
                f"each alone in a fresh process, median of {args.runs} after an untimed run",
                ["music", "candidate", "faster than diffusers tiled", "less memory", "time", "peak"],
                rows,
            )
        )


if __name__ == "__main__":
    main()
