"""The state of a training run on disk, so that it continues after any end of the process."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import CheckpointError, RequestError, first_line
from ..files import atomic_write, write_text
from .trainable import Trainable

STATE, LOSSES = "state.safetensors", "loss.csv"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of AdamW
_HEADER = ("step", "loss", "learning_rate", "gradient", "seconds")


@dataclass(frozen=True)
class LossRow:
    """A row of the loss table: mean loss, learning rate, norm of the gradient, and seconds since the first step."""

    step: int
    loss: float
    learning_rate: float
    gradient: float
    seconds: float


def save_state(
    path: Path, trainable: Trainable, optimizer: torch.optim.Optimizer, step: int, run: Mapping[str, Any]
) -> None:
    """Write factors and optimiser after `step` steps. run: what the run depends on. Raises RequestError."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in trainable.named_parameters():
        tensors[f"factor {name}"] = parameter.detach()
        for moment in _MOMENTS if optimizer.state[parameter] else ():
            tensors[f"{moment} {name}"] = optimizer.state[parameter][moment]
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {"step": str(step), "run": json.dumps(run, sort_keys=True)}
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


def restore_state(path: Path, trainable: Trainable, optimizer: torch.optim.Optimizer) -> None:
    """Load factors and optimiser from a stored state. Raises CheckpointError."""
    try:
        with safe_open(path, "pt") as file:
            for name, parameter in trainable.named_parameters():
                parameter.data.copy_(file.get_tensor(f"factor {name}"))
                if f"step {name}" in file.keys():
                    optimizer.state[parameter] = {
                        moment: file.get_tensor(f"{moment} {name}").to("cpu" if moment == "step" else parameter.device)
                        for moment in _MOMENTS
                    }
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit this run ({first_line(error)}); start again") from error


def read_losses(path: Path) -> list[LossRow]:
    """Return the complete rows of a loss table, none if there is no file."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
        return [LossRow(int(row["step"]), *(float(row[name]) for name in _HEADER[1:])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def write_losses(path: Path, rows: list[LossRow]) -> None:
    """Write a loss table. Raises RequestError."""
    lines = [",".join(_HEADER)]
    lines += [f"{r.step},{r.loss:.6f},{r.learning_rate:.3g},{r.gradient:.4g},{r.seconds:.1f}" for r in rows]
    write_text(path, "\n".join(lines) + "\n")
