"""From a name or path to a planner that is ready to write songs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..callbacks import Callbacks
from ..checkpoints.build import LoadReport, fill, refusing, tokenizer_folder
from ..checkpoints.catalog import default_roots
from ..checkpoints.find import find_planner
from ..checkpoints.layouts import open_planner
from ..models.layers import Ops
from ..models.ops import PlainOps, stored_ops
from ..runtime.devices import pick_device, pick_dtype
from ..runtime.options import default_placement, pick_storage
from ..runtime.placement import Offload, Placement, Resident
from ..text.tokenizer import Tokenizer
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
    callbacks: Callbacks | None = None,
) -> Planner:
    """The planner of a name from the catalog ("nano", "lm-1.7b", …), or at a path: a folder, or a file of ComfyUI.

    storage: "int8" or "fp8", what its layers' matrices are kept in, at half the memory of bfloat16; they compute in
    `dtype` all the same. tokenizer: a folder with Qwen's, for a single file, where none is found beside it. offload:
    the planner lives in main memory and visits the device. models_dir: where to look, instead of the default folders.
    Raises RequestError or CheckpointError.
    """

    device = pick_device(device)
    placement = default_placement(device, offload, callbacks=callbacks)
    kept = pick_storage(device, storage)
    path, found = find_planner(name_or_path, default_roots(models_dir))
    network, vocabulary, _ = load_planner_network(
        path,
        device="cpu" if isinstance(placement, Offload) else device,
        dtype=pick_dtype(device, "planner", dtype),
        tokenizer=tokenizer if tokenizer is not None else found,
        ops=PlainOps if kept is None else stored_ops(kept),
        callbacks=callbacks,
    )
    given = {"planner": name_or_path, "storage": storage if kept else None}
    return Planner(
        network, vocabulary, placement, {name: str(value) for name, value in given.items() if value is not None}
    )


def load_planner_network(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer: str | Path | None = None,
    ops: Ops = PlainOps,
    callbacks: Callbacks | None = None,
) -> tuple[PlannerNetwork, Vocabulary, LoadReport]:
    """The planner LM from its folder or a ComfyUI file, with its vocabulary. `tokenizer`: as for load_text_encoder."""

    path = Path(path)
    source = open_planner(path)
    config = source.config
    words = Tokenizer.from_folder(tokenizer_folder(path, source, tokenizer))
    vocabulary = Vocabulary.of(words, config.audio_base, config.audio_codes)
    with refusing(source):
        network = PlannerNetwork(config, ops, "meta", dtype)
    return network, vocabulary, fill(network, source, torch.device(device), dtype, callbacks or Callbacks())
