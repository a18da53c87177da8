"""The state of a training run on disk, so that it continues after any end of the process."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import CheckpointError, RequestError, first_line
from ..files import atomic_write, write_text
from .held_out import BestFactors
from .optimizers import AveragedFactors
from .trainable import Trainable

STATE, LOSSES = "state.safetensors", "loss.csv"
_NUMBER = "number."  # before the name of a number that the optimiser has as such
_HEADER = ("step", "loss", "learning_rate", "gradient", "seconds", "held_out")


@dataclass(frozen=True)
class LossRow:
    """A row of the loss table: mean loss, learning rate, norm of the gradient, and seconds since the first step.

    held_out: the loss of the held-out songs, None if it was not measured after this step.
    """

    step: int
    loss: float
    learning_rate: float
    gradient: float
    seconds: float
    held_out: float | None = None


@dataclass
class TrainState:
    """Everything that a training changes.

    average: of the factors, None without EMA. step: updates so far.
    best: by the held-out loss. measured: the step of its last measurement.
    """

    trainable: Trainable
    optimizer: torch.optim.Optimizer
    average: AveragedFactors | None = None
    step: int = 0
    best: BestFactors | None = None
    measured: int = 0

    @contextmanager
    def result(self) -> Iterator[None]:
        """Give the trainable the factors of the result within the block: their average, if there is one."""
        with nullcontext() if self.average is None else self.trainable.holding(self.average.values):
            yield


def save_state(path: Path, state: TrainState, run: Mapping[str, Any]) -> None:
    """Write a state. run: what the run depends on. Raises RequestError."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.trainable.named_parameters():
        tensors[f"factor {name}"] = parameter.detach()
        if state.average is not None:
            tensors[f"average {name}"] = state.average.values[name]
        for key, value in state.optimizer.state[parameter].items():
            kind = key if isinstance(value, Tensor) else f"{_NUMBER}{key}"
            tensors[f"{kind} {name}"] = torch.as_tensor(value)
    header = {"step": str(state.step), "measured": str(state.measured), "run": json.dumps(run, sort_keys=True)}
    if state.best is not None:
        tensors |= {f"best {name}": factor for name, factor in state.best.factors.items()}
        header |= {"best step": str(state.best.step), "best loss": repr(state.best.loss)}
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with atomic_write(path) as file:
            file.write(save(content, header))
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error


def stored_run(path: Path) -> tuple[int, dict[str, Any]] | None:
    """Return the step of a stored state and what its run depends on, or None without a file. Raises CheckpointError."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        return int(header["step"]), json.loads(header["run"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is no state of a training run ({first_line(error)}); delete it") from error


def restore_state(path: Path, state: TrainState) -> None:
    """Load a stored state into that of a new run. Raises CheckpointError."""
    try:
        with safe_open(path, "pt") as file:
            header, stored = file.metadata(), defaultdict[str, dict[str, Tensor]](dict)
            for key in file.keys():
                kind, _, name = key.partition(" ")
                stored[name][kind] = file.get_tensor(key)
        best: dict[str, Tensor] = {}
        for name, parameter in state.trainable.named_parameters():
            tensors = stored[name]
            parameter.data.copy_(tensors.pop("factor"))
            if state.average is not None:
                state.average.values[name].copy_(tensors.pop("average"))
            if "best" in tensors:
                best[name] = tensors.pop("best")
            state.optimizer.state[parameter] = _optimizer_state(tensors, parameter)
        state.step, state.measured = int(header["step"]), int(header.get("measured", 0))
        if best:
            state.best = BestFactors(int(header["best step"]), float(header["best loss"]), best)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit this run ({first_line(error)}); start again") from error


def _optimizer_state(tensors: Mapping[str, Tensor], parameter: Tensor) -> dict[str, Any]:
    """Return what an optimiser has for a parameter, by its names. AdamW has its step on the CPU."""
    return {
        kind.removeprefix(_NUMBER): tensor.item()
        if kind.startswith(_NUMBER)
        else tensor.to("cpu" if kind == "step" else parameter.device)
        for kind, tensor in tensors.items()
    }


def read_losses(path: Path) -> list[LossRow]:
    """Return the complete rows of a loss table, none if there is no file."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
        return [_loss_row(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _loss_row(row: Mapping[str, str]) -> LossRow:
    loss, rate, gradient, seconds = (float(row[name]) for name in _HEADER[1:-1])
    held_out = float(row["held_out"]) if row.get("held_out") else None  # older tables have no such column
    return LossRow(int(row["step"]), loss, rate, gradient, seconds, held_out)


def write_losses(path: Path, rows: Sequence[LossRow]) -> None:
    """Write a loss table. Raises RequestError."""
    lines = [",".join(_HEADER)]
    for row in rows:
        held_out = "" if row.held_out is None else f"{row.held_out:.6f}"
        values = f"{row.loss:.6f},{row.learning_rate:.3g},{row.gradient:.4g},{row.seconds:.1f}"
        lines.append(f"{row.step},{values},{held_out}")
    write_text(path, "\n".join(lines) + "\n")
