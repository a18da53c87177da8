"""The training loop of all stages: train for some minutes, log, evaluate, save, and resume."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path
from typing import Protocol

import torch

log = logging.getLogger("acestep")


def mixed(device: torch.device | str) -> torch.autocast:
    """Autocast to bfloat16, except on CPUs that emulate it and take a hundred times longer."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu" or _cpu_has_bfloat16())


def _cpu_has_bfloat16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch before 2.11
    return bool(probe and probe())


class Stage(Protocol):
    """A training stage. `seconds` is the training time of all sessions."""

    out: Path
    step: int
    seconds: float

    def train_step(self) -> dict[str, float]: ...

    def evaluate(self) -> dict[str, float]: ...

    def save(self) -> None: ...


def run(stage: Stage, minutes: float, every: int = 20, evaluate_every: int = 500, last_step: int | None = None) -> None:
    """Train for `minutes` or until `last_step`. Save the state at each evaluation and at the end."""
    start = mark = time.monotonic()
    before = stage.seconds
    sums: dict[str, float] = {}
    if stage.step == 0:
        _report(stage, stage.evaluate())
    while time.monotonic() - start < minutes * 60 and (last_step is None or stage.step < last_step):
        for name, value in stage.train_step().items():
            sums[name] = sums.get(name, 0.0) + value / every
        stage.seconds = before + time.monotonic() - start
        if stage.step % every == 0:
            speed = every / (time.monotonic() - mark)
            mark = time.monotonic()
            append_row(
                stage.out / "log.csv", {"step": stage.step, "hours": stage.seconds / 3600, **sums, "speed": speed}
            )
            sums = {}
        if stage.step % evaluate_every == 0:
            stage.save()
            _report(stage, stage.evaluate())
            mark = time.monotonic()
    stage.save()
    _report(stage, stage.evaluate())


def _report(stage: Stage, result: dict[str, float]) -> None:
    log.info("Step %d: %s", stage.step, " ".join(f"{k} {v:.3f}" for k, v in result.items()))
    append_row(stage.out / "held_out.csv", {"step": stage.step, "hours": stage.seconds / 3600, **result})


def append_row(path: Path, row: dict[str, float]) -> None:
    """Append one line to a CSV file, and the header first if the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in row.values()])
