"""Many songs of nano: one process against Ray, and the overhead of Ray for each song.

python -m benchmarks.batch                   24 songs of 10 seconds
python -m benchmarks.batch --songs 12        faster
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from acestep_core.batch.jobs import BatchJob, MadeSong, Outcome, Pool, chunks_of

from .common import log_progress, table

SIZES = {"2 MB, as a FLAC of ten seconds": 2_000_000, "no bytes, as with a URL": 0}
SIDES = {
    "one process, 1 thread": ("1", []),
    "one process, 2 threads": ("2", []),
    "Ray, 2 workers of 1 thread": ("1", ["--ray", "--workers", "2"]),
}


class BytesMaker:
    """Returns the bytes of a song at once."""

    def __init__(self, size: int):
        self._data = os.urandom(size)

    def make(self, jobs: list[BatchJob]) -> list[Outcome]:
        return [Outcome(job.number, [MadeSong(job.files[0], {}, self._data)]) for job in jobs]


def throughput(threads: str, options: list[str], songs: int, seconds: int, steps: int) -> tuple[float, float]:
    """Return songs per hour after the first song, and the seconds until that one."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        rows = [{"caption": f"song {n}", "duration": seconds, "steps": steps, "seed": n} for n in range(songs)]
        (Path(folder) / "songs.jsonl").write_text("\n".join(map(json.dumps, rows)))
        command = [sys.executable, "-m", "acestep_core", "batch", str(Path(folder) / "songs.jsonl"), "-o", str(out)]
        started = time.time()
        subprocess.run(
            [*command, "--model", "nano", "--device", "cpu", "-q", *options],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )
        times = sorted(path.stat().st_mtime for path in out.glob("*.flac"))
    return 3600 * (songs - 1) / (times[-1] - times[0]), times[0] - started


def overhead(pool: Pool, songs: int) -> float:
    """Return the seconds of a song that takes no time to make, after a first one."""
    jobs = [BatchJob(n, "", (f"{n}.flac",), "", "", None) for n in range(songs)]
    results = iter(pool.run(chunks_of(jobs)))
    next(results)
    started = time.perf_counter()
    for _ in results:
        pass
    return (time.perf_counter() - started) / (songs - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, default=24)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    found = {}
    for name, (threads, options) in SIDES.items():
        log_progress(name)
        found[name] = throughput(threads, options, args.songs, args.seconds, args.steps)
    base = found["one process, 1 thread"][0]
    rows = [[name, f"{rate / base:.2f}×", f"{rate:.0f}", f"{first:.1f} s"] for name, (rate, first) in found.items()]
    title = f"{args.songs} songs of {args.seconds} s, nano, {args.steps} steps"
    print(table(title, ["side", "throughput", "songs an hour", "until the first song"], rows))
    print(table("A song that takes no time to make, with Ray", ["file", "per song"], overheads()))


def overheads(songs: int = 400) -> list[list[str]]:
    """Return a row for each size of a file. In this process, such a song takes microseconds."""
    from acestep_core.batch.ray_pool import RayPool, RayWorkers, ray_cluster

    rows = []
    with ray_cluster(None):
        for name, size in SIZES.items():
            seconds = overhead(RayPool(partial(BytesMaker, size), RayWorkers(2)), songs)
            rows.append([name, f"{1000 * seconds:.2f} ms"])
    return rows


if __name__ == "__main__":
    main()
