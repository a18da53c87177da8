"""The ACESTEP_PLANNER socket."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import comfy.model_patcher
import torch

from ...acestep_core.models.cpu.plugins import install_cpu_plugins
from ...acestep_core.models.ops import QuantizedLinear
from ...acestep_core.planner.load_planner import Planner
from ...acestep_core.planner.network import PlannerNetwork, planner_bytes
from ...acestep_core.planner.vocabulary import Vocabulary
from .placement import ComfyPlacement, Container, storage_devices
from .progress import show_notes
from .versions import graphs_disabled

log = logging.getLogger("acestep")

PROMPT_TOKENS = 1024  # the fixed text of a prompt, and the longest metadata block
LYRICS_TOKENS = 4096  # the most that is generated after the metadata block


@dataclass(frozen=True)
class _PlannerPlacement(ComfyPlacement):
    """Logs the planner's device, and shows a note if only a part of its weights fits there."""

    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        with super().use(module) as device:
            log.info("planner on %s", device)
            loaded, size = (count / 2**30 for count in (self.patcher.loaded_size(), self.patcher.model_size()))
            if loaded < size and device != self.patcher.offload_device:
                show_notes(
                    f"planner: it needs {size:.1f} GiB, {device} has {loaded:.1f} GiB free. The rest is copied for "
                    "every token, which is slow; choose int8 or a smaller planner in Load Planner."
                )
            yield device


class PlacedPlanner:
    """A planner that ComfyUI loads onto `device`."""

    def __init__(self, network: PlannerNetwork, vocabulary: Vocabulary, device: torch.device):
        self.network, self.vocabulary = network, vocabulary
        install_cpu_plugins(network, device)
        devices = device, storage_devices().text_encoder
        # ComfyUI's dynamic patcher would move weights between two tokens, which no CUDA graph survives.
        self.patcher = comfy.model_patcher.ModelPatcher(Container(network), *devices)

    def with_room(self, *texts: str, rows: int = 1, new_tokens: int = 0, extra_bytes: int = 0) -> Planner:
        """Return the core's planner, with memory for a prompt of `texts`, `new_tokens` and `extra_bytes`.

        rows: sequences decoded at once. A guided sequence counts twice.
        """
        tokens = sum(len(self.vocabulary.encode(text)) for text in texts) + PROMPT_TOKENS + new_tokens
        tokens = min(tokens, self.network.config.max_position_embeddings)
        quantized = any(isinstance(layer, QuantizedLinear) for layer in self.network.layers.modules())
        memory = planner_bytes(self.network.config, rows, tokens, self.network.dtype.itemsize, quantized) + extra_bytes
        placement = _PlannerPlacement(self.patcher, memory)
        return Planner(self.network, self.vocabulary, placement, graphs=not graphs_disabled())
