"""Prove the pack on this device: one table, a verdict, and a file to send with a bug report.

    python -m tests.gpu                       the best device of this machine, at most eight minutes
    python -m tests.gpu --quick               tiny networks, about a minute; also for a CPU (--device cpu)
    python -m tests.gpu --only parity speed   groups or single checks
    python -m tests.gpu --list                the checks

It needs no model and no network: weights are random, or those of the built-in nano. The checks run in a process of
their own, so that a crash or a hang of the driver is a line of the table.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from acestep_core import RequestError
from acestep_core.runtime.devices import pick_device

from . import report
from .registry import CHECKS, FAILED, Check, Line, not_run, selected
from .runner import REPO, UNUSABLE, CheckResult, in_order, without_paths
from .worker import MARK

TOTAL = 480.0  # seconds of a run
HUNG = 4  # times the seconds of a check
LEAST = 120.0  # seconds until a check counts as hung, with the start of the process and the first kernels


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of checks or groups of them")
    parser.add_argument("--quick", action="store_true", help="tiny networks and short songs")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, xpu, mps, cpu")
    parser.add_argument("--out", type=Path, default=Path("gpu-report.json"), metavar="FILE", help="the JSON file")
    parser.add_argument("--list", action="store_true", help="print the names of the checks")
    args = parser.parse_args(arguments)
    if args.list:
        print("\n".join(f"{each.name:<22}{each.title}" for each in in_order(CHECKS.values())))
        return 0
    try:
        checks, device = in_order(selected(args.only)), pick_device(args.device)
    except (ValueError, RequestError) as error:
        print(f"tests.gpu: {error}", file=sys.stderr)
        return 2
    machine = report.machine_of(str(device))
    print(f"{report.machine_text(machine)}\n\n{report.HEADER}", flush=True)
    results: list[CheckResult] = []
    for result in supervised(checks, device, args.quick):
        print(report.check_text(result), flush=True)
        results.append(result)
    options = {"quick": args.quick, "only": args.only, "device": str(device)}
    report.write_json(args.out, machine, options, results)
    print(f"\n{report.verdict(results, machine['device']['name'], args.out)}")
    return report.exit_code(results)


def supervised(checks: Sequence[Check], device: torch.device, quick: bool) -> Iterator[CheckResult]:
    """Yield the results of a worker process. After its crash or hang, another one runs the remaining checks."""
    remaining, end = {each.name: each for each in checks}, time.monotonic() + TOTAL
    while remaining:
        worker = Worker(worker_command(device, quick, max(end - time.monotonic(), 0), [*remaining]))
        for result in worker.results(checks, slow=device.type == "cpu"):
            del remaining[result.name]
            yield result
        if not remaining:
            return
        if worker.running is None and worker.unusable:
            continue
        each = remaining.pop(worker.running or next(iter(remaining)))
        yield CheckResult(each.name, each.title, [Line(each.name, FAILED, reason=worker.end)], traceback=worker.tail)
        if worker.running is None:
            for each in remaining.values():
                yield CheckResult(each.name, each.title, [not_run(each.name, "the process of the checks cannot start")])
            return


def worker_command(device: torch.device, quick: bool, seconds: float, names: Sequence[str]) -> list[str]:
    """Return the command line of the worker."""
    options = ["--device", str(device), "--seconds", str(seconds), *(["--quick"] if quick else [])]
    return [sys.executable, "-m", "tests.gpu.worker", *options, *names]


class Worker:
    """A process that runs checks.

    running: the check that had not ended when the process did. end: how the process ended. tail: its last error lines.
    unusable: True if the device has failed, as after an illegal address: nothing works in this process any more.
    """

    def __init__(self, command: Sequence[str]):
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            command, cwd=REPO, stdout=subprocess.PIPE, stderr=self._errors, text=True, errors="replace"
        )
        self.running: str | None = None
        self.end = self.tail = ""
        self.unusable = False

    def results(self, checks: Sequence[Check], slow: bool) -> Iterator[CheckResult]:
        """Yield results until the process ends or is silent for too long."""
        limits = {each.name: max(LEAST, HUNG * each.seconds) for each in checks}
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=[lines], daemon=True).start()
        try:
            while not self.unusable:
                limit = limits.get(self.running or "", LEAST) * (3 if slow else 1)
                try:
                    line = lines.get(timeout=limit)
                except queue.Empty:
                    self.end = f"it did not end after {limit:.0f} s and was stopped"
                    return
                if line is None:
                    return
                yield from self._handle(line)
        finally:
            self._stop()

    def _handle(self, line: str) -> Iterator[CheckResult]:
        if not line.startswith(MARK):
            return
        event = json.loads(line[len(MARK) :])
        self.running = event.get("start")
        if "result" in event:
            result = CheckResult.from_dict(event["result"])
            self.unusable = any(line.what == UNUSABLE for line in result.lines)
            yield result

    def _read(self, lines: queue.Queue[str | None]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            lines.put(line)
        lines.put(None)

    def _stop(self) -> None:
        if self.end or self.unusable:
            self._process.kill()
        code = self._process.wait()
        self.end = self.end or f"the process ended with code {code}"
        with self._errors as errors:
            errors.seek(0)
            self.tail = without_paths("".join(errors.readlines()[-15:]))


if __name__ == "__main__":
    raise SystemExit(main())
