"""torch.compile for the layers and activations, which are most of a network."""

from __future__ import annotations

import torch
from torch import nn

from .dit import DiTLayer
from .snake import Snake

# All layers share one code object. By default torch compiles it for eight kinds of input (windowed or not, guided or
# not, several lengths) and then runs any new kind uncompiled.
RECOMPILE_LIMIT = 64


def compile_parts(*networks: nn.Module, **options: object) -> None:
    """Let DiT layers and Snake activations run compiled from their next call on.

    options: those of torch.compile. Weights and their names do not change. The limit of recompilations is raised for
    the whole process, as torch has no finer one.
    """
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"  # torch < 2.7
    setattr(torch._dynamo.config, limit, max(RECOMPILE_LIMIT, getattr(torch._dynamo.config, limit)))
    for network in networks:
        for part in network.modules():
            if isinstance(part, DiTLayer | Snake):
                part.compile(**options)
