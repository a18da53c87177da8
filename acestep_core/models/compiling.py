"""torch.compile, for the parts that are most of a network and take one compilation for all of their kind."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from .dit import DiTLayer
from .snake import Snake

# All layers are one piece of code to torch, which by default compiles it for eight kinds of song (with a window and
# without, guided, of several lengths) and after that runs every new kind uncompiled.
KINDS = 64


def compile_parts(*networks: nn.Module, **options: object) -> None:
    """Layers of a diffusion transformer and activations of an autoencoder run compiled from their next call on.

    `options` are torch.compile's. Weights and their names stay what they are. Torch has no limit of recompilations for
    some code alone: it is raised for the process.
    """
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"  # torch < 2.7
    setattr(torch._dynamo.config, limit, max(KINDS, getattr(torch._dynamo.config, limit)))
    for part in _parts(*networks):
        part.compile(**options)


def _parts(*networks: nn.Module) -> Iterator[nn.Module]:
    return (part for network in networks for part in network.modules() if isinstance(part, DiTLayer | Snake))
