"""CUDA graphs: what a function asks of a card, recorded once, so that it can be asked for again in one go."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

log = logging.getLogger("acestep")


def can_record(device: torch.device) -> bool:
    """ROCm has graphs, too, but they gain little there and hang on some cards."""
    return device.type == "cuda" and not torch.version.hip


def recorded(step: Callable[[], None], who: str) -> torch.cuda.CUDAGraph | None:
    """`step`, recorded and not run; or None where that cannot be done: layers that fetch their weights, say.

    It must have run before, as a first run does what no recording may, and keep its state in tensors that it changes
    in place.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        log.info("%s: without CUDA graphs, which this setup does not allow (%s)", who, str(error).splitlines()[0])
        return None
    return graph
