"""Shared by all benchmarks: alternating timing, peak memory of a child process, progress lines, tables."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch


def alternate(candidates: dict[str, Callable[[], object]], runs: int, warmup: int = 1) -> dict[str, float]:
    """Return the median seconds of each candidate.

    They run in turn (A B A B ...), so that a drift of the machine affects all alike.
    """
    for _ in range(warmup):
        for run in candidates.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(runs):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def resident_bytes() -> int:
    """Return the resident set size of this process. Linux only."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class PeakMemory:
    """Sample the resident set from a thread. `peak` is its growth in bytes since entry."""

    def __enter__(self) -> PeakMemory:
        self._base, self.peak, self._stop = resident_bytes(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, resident_bytes() - self._base)

    def __exit__(self, *_: object) -> None:
        self.peak = max(self.peak, resident_bytes() - self._base)
        self._stop.set()
        self._thread.join()


def in_child(module: str, *arguments: str, **environment: str) -> dict:
    """Run `module` in a fresh interpreter, for a clean start of memory, and return the JSON of its last line."""
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, **environment},
    )
    return json.loads(result.stdout.strip().splitlines()[-1])


def log_progress(text: str) -> None:
    """Print a line to stderr, as stdout is for tables."""
    print(text, file=sys.stderr, flush=True)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table with the machine in its caption."""
    lines = [f"### {title}", "", f"{machine()}", ""]
    lines.append("| " + " | ".join(header) + " |")
    lines.append("|" + "---|" * len(header))
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """Return processor, threads and versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def megabytes(count: float) -> str:
    return f"{count / 2**20:.0f} MB"
