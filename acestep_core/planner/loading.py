"""From a name or path to a planner that is ready to write songs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..models.layers import Ops
from ..runtime import Hooks, Offload, Placement, Resident, default_placement, pick_device, pick_dtype
from .network import PlannerNetwork
from .vocabulary import Vocabulary


@dataclass
class Planner:
    """The language model that plans songs, its vocabulary, and who places it.

    origin: what it was loaded from ("planner" for the name or path).
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
    tokenizer: str | Path | None = None,
    offload: bool = False,
    models_dir: str | None = None,
    ops: Ops = nn,
    hooks: Hooks | None = None,
) -> Planner:
    """The planner of a name from the catalog ("nano", "lm-1.7b", …), or at a path: a folder, or a file of ComfyUI.

    tokenizer: a folder with Qwen's, for a single file, where none is found beside it. offload: the planner lives in
    main memory and visits the device. models_dir: where to look, instead of the default folders. ops: layers of the
    network, such as a host's. Raises RequestError or CheckpointError.
    """
    from ..checkpoints.catalog import default_roots
    from ..checkpoints.find import find_planner
    from ..checkpoints.loading import load_planner_network

    device = pick_device(device)
    placement = default_placement(device, offload)
    path, found = find_planner(name_or_path, default_roots(models_dir))
    network, vocabulary, _ = load_planner_network(
        path,
        device="cpu" if isinstance(placement, Offload) else device,
        dtype=pick_dtype(device, "planner", dtype),
        tokenizer=tokenizer if tokenizer is not None else found,
        ops=ops,
        hooks=hooks,
    )
    return Planner(network, vocabulary, placement, {"planner": str(name_or_path)})
