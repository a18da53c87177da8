"""Run hostile inputs and print their outcomes."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from . import __doc__ as readme
from . import adapters, checkpoints, requests
from .run import run

TARGETS = adapters.TARGETS | checkpoints.TARGETS | checkpoints.SLOW_TARGETS | requests.TARGETS


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=(readme or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="only these; default all")
    parser.add_argument("--only", type=int, help="number of one input, with the other options unchanged")
    options = parser.parse_args()
    torch.set_num_threads(1)
    targets = {name: TARGETS[name] for name in options.target or TARGETS}
    with tempfile.TemporaryDirectory() as folder:
        report = run(targets, Path(folder), options.inputs, options.seed, options.only)
    print(*report.faults, report.table(), sep="\n\n")
    return 1 if report.faults and options.only is None else 0


if __name__ == "__main__":
    sys.exit(main())
