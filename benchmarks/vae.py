"""Oobleck at its real size: decode and encode against diffusers, time and peak memory.

    python -m benchmarks.vae --seconds 10 30 --runs 1
    python -m benchmarks.vae --accuracy            how far a CPU's fast way and half precision are from the layers, 3 s

Each way runs alone in a fresh process: once untimed, then --runs times, of which the median is shown. Memory is the
growth of the resident set over all of them. Weights are random.
"""

from __future__ import annotations

import argparse
import copy
import json
import time

import torch
from torch import Tensor

from acestep_core.config import FRAME_RATE, SAMPLE_RATE, VAEConfig
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.tiling import decode_tiled, encode_tiled
from acestep_core.runtime.devices import has_bfloat16

from .common import PeakMemory, in_child, megabytes, table

CANDIDATES = ["ours, tiled", "ours, whole", "diffusers, tiled", "diffusers, whole"]
if has_bfloat16(torch.device("cpu")):  # elsewhere it takes minutes
    CANDIDATES.append("diffusers, bfloat16, whole")


def our_vae() -> OobleckVAE:
    torch.manual_seed(0)
    return OobleckVAE(VAEConfig()).eval()


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
    """Job, way, and its error in dB against the layers in float64 and in float32. `vae` is a CPU's, in float32."""
    exact, found = copy.deepcopy(vae).double(), []
    for job, given in (("decode", latents), ("encode", waveform)):
        fast = vae.decode(given) if job == "decode" else vae.encode(given)
        double, single = (layers(network, job, given) for network in (exact, vae))
        found += [
            (job, "fast way, float32", decibels(fast, double), decibels(fast, single)),
            (job, "layers, float32", decibels(single, double), None),
        ]
        for name in ("float16", "bfloat16"):
            coarse = layers(copy.deepcopy(vae).to(getattr(torch, name)), job, given)
            found.append((job, f"layers, {name}", decibels(coarse, double), decibels(coarse, single)))
    return found


def layers(vae: OobleckVAE, job: str, given: Tensor) -> Tensor:
    """The same as `vae.decode` or `vae.encode`, layer by layer, in the dtype of the weights."""
    if job == "decode":
        return vae.decoder(given.to(vae.dtype).transpose(1, 2))
    return vae.encoder(given.to(vae.dtype)).chunk(2, dim=1)[0].transpose(1, 2)


def decibels(got: Tensor, wanted: Tensor) -> float:
    """Power of the error to that of what is wanted."""
    got, wanted = got.double(), wanted.double()
    return 10 * float(((got - wanted).square().mean() / wanted.square().mean()).log10())


def accuracy_table(seconds: int) -> str:
    vae = our_vae()
    with torch.inference_mode():
        found = accuracy(vae, *some_inputs(seconds))
    rows = [[job, way, *("" if db is None else f"{db:.1f} dB" for db in errors)] for job, way, *errors in found]
    return table(
        f"VAE error, real Oobleck, {seconds} s of noise",
        ["job", "way", "against the layers in float64", "in float32"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30])
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
            results = {
                name: in_child(__spec__.name, "--one", name, job, "--seconds", str(seconds), "--runs", str(args.runs))
                for name in CANDIDATES
            }
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
                f"each way alone in a fresh process, median of {args.runs} after an untimed run",
                ["music", "way", "faster than diffusers tiled", "less memory", "time", "peak"],
                rows,
            )
        )


if __name__ == "__main__":
    main()
