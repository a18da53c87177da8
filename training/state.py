"""Save training state atomically, in pieces of at most 15 MB, and average weights."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import torch

PIECE = 15_000_000


def save_state(folder: Path, name: str, state: dict) -> None:
    """Write `state` (tensors, numbers, lists, dicts) as `{name}-{digest}.000 …`, listed in `{name}.json`.

    The list is replaced atomically after all pieces are written, so a crash leaves the previous state intact.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    pieces = []
    for index in range(0, len(data), PIECE):
        pieces.append(f"{name}-{digest[:12]}.{index // PIECE:03d}")
        (folder / pieces[-1]).write_bytes(data[index : index + PIECE])
    partial = folder / f"{name}.json.part"
    partial.write_text(json.dumps({"sha256": digest, "pieces": pieces}))
    os.replace(partial, folder / f"{name}.json")
    for path in folder.glob(f"{name}-*.[0-9][0-9][0-9]"):
        if path.name not in pieces:
            path.unlink()


def load_state(folder: Path, name: str) -> dict | None:
    """Load the last state to the CPU, or return None. Raises ValueError if the pieces are damaged."""
    pointer = Path(folder) / f"{name}.json"
    if not pointer.exists():
        return None
    table = json.loads(pointer.read_text())
    data = b"".join((Path(folder) / piece).read_bytes() for piece in table["pieces"])
    if hashlib.sha256(data).hexdigest() != table["sha256"]:
        raise ValueError(f"{pointer}: the training state is damaged (its pieces do not match their checksum)")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


class Average:
    """An exponential moving average of a module's parameters. Its warm-up discards the early weights."""

    def __init__(self, module: torch.nn.Module, decay: float = 0.999):
        self.decay = decay
        self.parameters = list(module.parameters())
        self.values = [p.detach().clone().float() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach().float() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the live weights. A second call undoes the exchange."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            live = parameter.detach().clone().float()
            parameter.copy_(value)
            value.copy_(live)

    def state(self) -> list[torch.Tensor]:
        return self.values

    def load(self, values: list[torch.Tensor]) -> None:
        for own, value in zip(self.values, values, strict=True):
            own.copy_(value)
