"""Load the planner, ACE-Step 1.5's 5 Hz LM, from a name or path."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..callbacks import Callbacks
from ..checkpoints.build import open_tokenizer
from ..checkpoints.find import find_planner
from ..checkpoints.installed import default_roots
from ..checkpoints.qwen3_layouts import coarse_types, open_planner
from ..checkpoints.weights import LoadReport, load_weights
from ..models.cpu.plugins import install_cpu_plugins
from ..models.layers import Ops
from ..models.ops import quantized_ops
from ..runtime.devices import pick_device, pick_dtype
from ..runtime.options import default_placement, pick_graphs, pick_storage
from ..runtime.placement import Offload, Placement, Resident
from .network import PlannerNetwork
from .vocabulary import Vocabulary


@dataclass
class Planner:
    """The planner's network, its vocabulary, and its placement on a device.

    graphs: True replays the step of a token as a CUDA graph, if the device can. The result is the same.
    """

    network: PlannerNetwork
    vocabulary: Vocabulary
    placement: Placement = field(default_factory=lambda: Resident(torch.device("cpu")))
    graphs: bool = True


def load_planner(
    name_or_path: str | Path = "nano",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    storage: str | None = None,
    tokenizer: str | Path | None = None,
    offload: bool = False,
    graphs: bool | None = None,
    models_dir: str | None = None,
    callbacks: Callbacks | None = None,
) -> Planner:
    """Load a planner by catalog name ("nano", "lm-1.7b", …) or path: a model folder, a file of ComfyUI, or GGUF.

    storage: "int8" or "fp8" for the matrices of the layers, at half the memory of bfloat16. They compute in `dtype`.
    tokenizer: a folder with Qwen's tokenizer, for a single file without one beside it.
    offload: keep the weights in host memory and copy them to the device when they are used.
    graphs: False runs the step of every token as it is. By default NVIDIA GPUs replay it as a CUDA graph, which is
        faster. True also warns if the device cannot do it.
    models_dir: where to look, instead of the default folders.

    Raises RequestError for an option that is not allowed, and CheckpointError for files that are missing or unfit.
    """
    device = pick_device(device)
    placement = default_placement(device, offload, callbacks=callbacks)
    storage_dtype = pick_storage(device, storage)
    graphs = graphs is None or pick_graphs(device, graphs, stream=False, callbacks=callbacks)
    path, found = find_planner(name_or_path, default_roots(models_dir))
    network, vocabulary, _ = load_planner_network(
        path,
        device="cpu" if isinstance(placement, Offload) else device,
        dtype=pick_dtype(device, "planner", dtype),
        tokenizer=tokenizer if tokenizer is not None else found,
        ops=nn if storage_dtype is None else quantized_ops(storage_dtype),
        callbacks=callbacks,
    )
    install_cpu_plugins(network, device)
    return Planner(network, vocabulary, placement, graphs)


def load_planner_network(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer: str | Path | None = None,
    ops: Ops = nn,
    callbacks: Callbacks | None = None,
) -> tuple[PlannerNetwork, Vocabulary, LoadReport]:
    """Load the network and the vocabulary of a planner. See `load_planner` for parameters and errors."""
    source = open_planner(Path(path))
    config, coarse = source.config, coarse_types(source)
    if coarse:
        (callbacks or Callbacks()).warn(
            f"{source.path.name} is quantised to {', '.join(coarse)}: its audio codes may be broken; use Q5_K_M or more"
        )
    text_tokenizer = open_tokenizer(path, source, tokenizer)
    vocabulary = Vocabulary.of(text_tokenizer, config.audio_base, config.audio_codes)
    network, report = load_weights(lambda: PlannerNetwork(config, ops, "meta", dtype), source, device, dtype, callbacks)
    return network, vocabulary, report
