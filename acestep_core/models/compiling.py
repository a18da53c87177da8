"""torch.compile, for the parts that are most of a network and take one compilation for all of their kind."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .dit import DiTLayer
from .snake import Snake


def compile_parts(*networks: nn.Module, **options: object) -> None:
    """Layers of a diffusion transformer and activations of an autoencoder run compiled from their next call on.

    `options` are torch.compile's. Weights and their names stay what they are.
    """
    for part in _parts(*networks):
        part.compile(**options)


def _parts(*networks: nn.Module) -> Iterator[nn.Module]:
    return (part for network in networks for part in network.modules() if isinstance(part, DiTLayer | Snake))
