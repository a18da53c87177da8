"""Songs of nano through `acestep batch --ray` while workers are killed: `python -m tests.soak --songs 300`.

At the end every song must be there once, bit for bit as its recipe makes it, the manifest true, and memory flat.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import soundfile

from acestep_core import read_settings
from acestep_core.batch.manifest import read_manifest

REPO = Path(__file__).parents[2]
LENGTHS = (2, 3, 4, 5, 6, 8, 10)  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--songs", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill-every", type=float, default=30, metavar="SECONDS")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--again", type=int, default=5, help="songs to make again, to compare their bytes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults = soak(Path(folder), options)
    print("\n".join(faults) or "all songs are there, none twice, and the manifest is true")
    sys.exit(bool(faults))


def soak(folder: Path, options: argparse.Namespace) -> list[str]:
    """Run the batch and return what is wrong."""
    rows = [
        {"caption": f"song {n}", "duration": LENGTHS[n % len(LENGTHS)], "steps": options.steps, "seed": n}
        for n in range(1, options.songs + 1)
    ]
    (folder / "songs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = folder / "out"
    command = [sys.executable, "-m", "acestep_core", "batch", str(folder / "songs.jsonl"), "-o", str(out), "--ray"]
    command += ["--workers", str(options.workers), "--model", "nano", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    watch = Watch(process, options.kill_every)
    code = process.wait()
    watch.ended.set()
    print(f"exit code {code} after {time.monotonic() - started:.0f} s, {watch.kills} workers killed")
    for minute, driver, workers in watch.memory:
        print(f"minute {minute:5.1f}: driver {driver:5.0f} MB, workers {workers:5.0f} MB each")
    return [*([] if code == 0 else [f"exit code {code}"]), *check(rows, out, folder, options.again)]


def check(rows: list[dict], out: Path, folder: Path, again: int) -> list[str]:
    """Compare files, manifest and list."""
    faults = []
    entries = read_manifest(out / "manifest.jsonl")
    if sorted(entry.get("row", 0) for entry in entries) != list(range(1, len(rows) + 1)):
        faults.append(f"the manifest has {len(entries)} lines for {len(rows)} songs")
    files = {path.name for path in out.iterdir()} - {"manifest.jsonl"}
    if files != {entry.get("file") for entry in entries}:
        faults.append(f"{len(files)} files, other than those of the manifest")
    for entry in entries:
        row, path = rows[entry["row"] - 1], out / entry.get("file", "missing")
        info = soundfile.info(path)
        if info.frames != row["duration"] * 48_000 or entry["seconds"] != row["duration"]:
            faults.append(f"{path.name} has {info.frames} samples")
        recipe = read_settings(path)
        if recipe != entry["recipe"] or (recipe["seed"], recipe["caption"]) != (row["seed"], row["caption"]):
            faults.append(f"{path.name} has another recipe")
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    for entry in random.Random(1).sample(entries, min(again, len(entries))):
        path, other = out / entry["file"], folder / "again.flac"
        command = [sys.executable, "-m", "acestep_core", "--from", str(path), "--device", "cpu", "-q", "-o", str(other)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        if path.read_bytes() != other.read_bytes():
            faults.append(f"{path.name} is not the song of its recipe")
    return faults


class Watch:
    """Kills a worker from time to time, and records the memory. memory: minutes, MB of the driver and of a worker."""

    def __init__(self, process: subprocess.Popen, every: float):
        self.ended, self.kills, self.memory = threading.Event(), 0, []
        self._process, self._every = process, every
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        started = last = time.monotonic()
        rng = random.Random(0)
        while not self.ended.wait(1):
            now = time.monotonic()
            workers = self._workers()
            if now - last < self._every or not workers:
                continue
            last = now
            sizes = [worker.memory_info().rss / 2**20 for worker in workers]
            driver = psutil.Process(self._process.pid).memory_info().rss / 2**20
            self.memory.append(((now - started) / 60, driver, max(sizes)))
            os.kill(rng.choice(workers).pid, signal.SIGKILL)
            self.kills += 1

    def _workers(self) -> list[psutil.Process]:
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
            return [child for child in children if child.name().startswith("ray::_RayWorker")]
        except psutil.Error:
            return []


if __name__ == "__main__":
    main()
