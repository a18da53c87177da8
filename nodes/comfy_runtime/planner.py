"""The ACESTEP_PLANNER socket."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management as mm
import comfy.model_patcher
import torch

from ...acestep_core.models.ops import StoredLinear
from ...acestep_core.planner.load_planner import Planner, load_planner_network
from ...acestep_core.planner.network import PlannerNetwork, planner_bytes
from ...acestep_core.planner.vocabulary import Vocabulary
from .ops import comfy_ops, stored_layers
from .placement import ComfyPlacement, Container, homes
from .precision import planner_dtypes
from .progress import show_note, watched
from .text_encoder import BUNDLED_TOKENIZER

log = logging.getLogger("acestep")

FRAME_TOKENS = 1024  # what stands around the words of a prompt, and the reasoning at its longest
LYRICS_TOKENS = 4096  # the most that is written after the reasoning


@dataclass(frozen=True)
class _PlannerPlacement(ComfyPlacement):
    """Says where the planner came to lie before its first token, and what slows it down."""

    @contextmanager
    def use(self, module: torch.nn.Module) -> Iterator[torch.device]:
        with super().use(module) as device:
            log.info("planner on %s", device)
            there, size = (count / 2**30 for count in (self.patcher.loaded_size(), self.patcher.model_size()))
            if there < size and device != self.patcher.offload_device:
                show_note(
                    f"the planner needs {size:.1f} GiB and {device} has room for {there:.1f}: the rest is fetched for "
                    "every token, which is slow; choose int8 or a smaller planner in Load Planner"
                )
            yield device


class PlacedPlanner:
    """A planner that comes to the GPU, where there is one, with room for what it is about to write."""

    def __init__(self, network: PlannerNetwork, vocabulary: Vocabulary):
        self.network, self.vocabulary = network, vocabulary
        self.patcher = comfy.model_patcher.ModelPatcher(Container(network), mm.get_torch_device(), homes().text_encoder)

    def ready(self, *words: str, rows: int = 1, more: int = 0, beside: int = 0) -> Planner:
        """The core's planner, to be given `words` and to write `more` tokens, in so many rows at once (guided ones
        count twice), with `beside` further bytes."""
        tokens = sum(len(self.vocabulary.encode(text)) for text in words) + FRAME_TOKENS + more
        tokens = min(tokens, self.network.config.max_position_embeddings)
        stored = any(isinstance(layer, StoredLinear) for layer in self.network.layers.modules())
        memory = planner_bytes(self.network.config, rows, tokens, self.network.dtype.itemsize, stored) + beside
        return Planner(self.network, self.vocabulary, _PlannerPlacement(self.patcher, memory))


def load_planner(path: Path, tokenizer: Path | None, dtype: str) -> PlacedPlanner:
    """The planner at `path`, read to where ComfyUI keeps what is not in use. `tokenizer`: a folder, for a single file;
    by default the one that ComfyUI carries."""
    kept, compute = planner_dtypes(dtype)
    ops = comfy_ops(compute, compute, wide=True)
    if kept is not None:
        ops.layers = stored_layers(kept)
    with watched() as callbacks:
        network, vocabulary, _ = load_planner_network(
            path,
            device=homes().text_encoder,
            dtype=compute,
            tokenizer=tokenizer if tokenizer is not None or path.is_dir() else BUNDLED_TOKENIZER,
            ops=ops,
            callbacks=callbacks,
        )
    return PlacedPlanner(network, vocabulary)
