"""Oobleck at its real size: decode and encode against diffusers, time and peak memory, each in a fresh process.

python -m benchmarks.vae --seconds 10 30 --runs 1
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from acestep_core.config import FRAME_RATE, SAMPLE_RATE, VAEConfig
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.models.tiling import decode_tiled, encode_tiled

from .common import PeakMemory, in_child, megabytes, table

CANDIDATES = ("ours, tiled", "ours, whole", "diffusers, tiled", "diffusers, whole", "diffusers, bfloat16, whole")


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


def measure(candidate: str, job: str, seconds: int, runs: int) -> dict[str, float]:
    latents = torch.randn(1, seconds * FRAME_RATE, 64)
    waveform = torch.rand(1, 2, seconds * SAMPLE_RATE) * 2 - 1
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
        for _ in range(runs):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
    return {"seconds": sorted(times)[len(times) // 2], "peak": memory.peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--one", nargs=2, metavar=("CANDIDATE", "JOB"), help=argparse.SUPPRESS)
    args = parser.parse_args()
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
                f"VAE {job}, real Oobleck (168.7 M parameters), float32 unless said",
                ["music", "way", "faster than diffusers tiled", "less memory", "time", "peak"],
                rows,
            )
        )


if __name__ == "__main__":
    main()
