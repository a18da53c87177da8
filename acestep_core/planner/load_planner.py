"""From a name or path to a planner that is ready to write songs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..models.ops import PlainOps, stored_ops
from ..runtime import Hooks, Offload, Placement, Resident, default_placement, pick_device, pick_dtype, pick_storage
from .network import PlannerNetwork
from .vocabulary import Vocabulary


@dataclass
class Planner:
    """The language model that plans songs, its vocabulary, and who places it.

    origin: what it was loaded from ("planner" for the name or path), and its storage.
    """

    network: PlannerNetwork
    vocabulary: Vocabulary
    placement: Placement = field(default_factory=lambda: Resident(torch.device("cpu")))
    origin: Mapping[str, str] = field(default_factory=dict)


def load_planner(
    name_or_path: str | Path = "nano",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    storage: str | None = None,
    tokenizer: str | Path | None = None,
    offload: bool = False,
    models_dir: str | None = None,
    hooks: Hooks | None = None,
) -> Planner:
    """The planner of a name from the catalog ("nano", "lm-1.7b", …), or at a path: a folder, or a file of ComfyUI.

    storage: "int8" or "fp8", what its layers' matrices are kept in, at half the memory of bfloat16; they compute in
    `dtype` all the same. tokenizer: a folder with Qwen's, for a single file, where none is found beside it. offload:
    the planner lives in main memory and visits the device. models_dir: where to look, instead of the default folders.
    Raises RequestError or CheckpointError.
    """
    from ..checkpoints.catalog import default_roots
    from ..checkpoints.find import find_planner
    from ..checkpoints.loading import load_planner_network

    device = pick_device(device)
    placement = default_placement(device, offload, hooks=hooks)
    kept = pick_storage(device, storage)
    path, found = find_planner(name_or_path, default_roots(models_dir))
    network, vocabulary, _ = load_planner_network(
        path,
        device="cpu" if isinstance(placement, Offload) else device,
        dtype=pick_dtype(device, "planner", dtype),
        tokenizer=tokenizer if tokenizer is not None else found,
        ops=PlainOps if kept is None else stored_ops(kept),
        hooks=hooks,
    )
    given = {"planner": name_or_path, "storage": storage if kept else None}
    return Planner(
        network, vocabulary, placement, {name: str(value) for name, value in given.items() if value is not None}
    )
