"""Finishing and measuring songs, against another meter.

python -m benchmarks.finish                  10 minutes of stereo
python -m benchmarks.finish --seconds 60     faster
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch import Tensor

from acestep_core.audio import Finish, finish_songs, measure_loudness
from acestep_core.config import SAMPLE_RATE

from .common import PeakMemory, in_child, log_progress, megabytes, table

METER = "pyloudnorm, integrated only"
CANDIDATES = {
    "measure": lambda waveform: measure_loudness(waveform, SAMPLE_RATE),
    METER: lambda waveform: their_loudness(waveform),
    "finish at -14 LUFS": lambda waveform: finish_songs([waveform], SAMPLE_RATE, Finish(loudness=-14)),
    "finish at -9 LUFS": lambda waveform: finish_songs([waveform], SAMPLE_RATE, Finish(loudness=-9)),
    "finish at -9 LUFS, in place": lambda waveform: finish_songs(
        [waveform], SAMPLE_RATE, Finish(loudness=-9), in_place=True
    ),
}


def sound(seconds: int) -> Tensor:
    """Return a tone and a noisy beat `[2, samples]`, whose peaks meet the limiter at −14 LUFS."""
    rng = torch.Generator().manual_seed(0)
    count = seconds * SAMPLE_RATE
    beat = torch.exp(-8 * ((torch.arange(count) * 2 / SAMPLE_RATE) % 1))
    tone = 0.1 * torch.sin(torch.arange(count) * (2 * torch.pi * 220 / SAMPLE_RATE))
    return torch.stack([tone + 0.12 * beat * torch.randn(count, generator=rng) for _ in range(2)])


def their_loudness(waveform: Tensor) -> float:
    import pyloudnorm

    return pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(waveform.T.numpy())


def measure(name: str, seconds: int) -> dict[str, float]:
    """Return wall and CPU seconds, peak memory and size of the audio, after a short untimed run."""
    waveform = sound(seconds)
    CANDIDATES[name](waveform[:, :SAMPLE_RATE].clone())
    with PeakMemory() as memory:
        started, cpu = time.perf_counter(), time.process_time()
        CANDIDATES[name](waveform)
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"seconds": elapsed, "cpu": cpu, "peak": memory.peak, "size": waveform.nbytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--one", metavar="CANDIDATE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.seconds)))
        return
    rows = []
    for name in CANDIDATES:
        log_progress(f"{args.seconds} s: {name}")
        result = in_child(__spec__.name, "--one", name, "--seconds", str(args.seconds))
        rows.append(
            [
                name,
                f"{args.seconds / result['seconds']:.0f}×",
                f"{result['peak'] / result['size']:.2f}×",
                f"{result['seconds']:.1f} s",
                f"{result['cpu']:.1f} s",
                megabytes(result["peak"]),
            ]
        )
    print(
        table(
            f"Loudness of {args.seconds} s of stereo, each alone in a fresh process",
            ["candidate", "faster than real time", "memory / audio", "time", "CPU time", "peak"],
            rows,
        )
    )


if __name__ == "__main__":
    main()
