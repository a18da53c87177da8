"""The training objective: flow matching on the velocity of the transformer.

Everything random is a function of the seed, the number of the batch and the place in it, so that a resumed run
continues as an unbroken one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..models.condition import stack_conditions
from ..models.layers import LayerStack
from ..models.model import AceStepModel
from ..sampling.context import context_latents

TIME_MEAN, TIME_DEVIATION = -0.4, 1.0


def draw_times(rngs: Sequence[random.Random], choices: Sequence[float] | None) -> Tensor:
    """Draw a time for each generator, float32. choices: the possible times, None for continuous ones."""
    if choices is None:
        numbers = [rng.gauss(TIME_MEAN, TIME_DEVIATION) for rng in rngs]
        return torch.tensor(numbers).sigmoid()
    return torch.tensor([choices[rng.randrange(len(choices))] for rng in rngs])


def draw_training_noise(rngs: Sequence[random.Random], frames: int, channels: int) -> Tensor:
    """Draw noise [len(rngs), frames, channels], float32 on the CPU."""
    generators = [torch.Generator().manual_seed(rng.getrandbits(63)) for rng in rngs]
    return torch.stack([torch.randn(frames, channels, generator=generator) for generator in generators])


def flow_loss(
    network: AceStepModel, data: Tensor, conditions: Sequence[Tensor], noise: Tensor, times: Tensor
) -> Tensor:
    """Return the mean squared error of the velocity for a batch, a float32 scalar.

    data: latents [B, T, 64], float32, of songs from text. The context is silence, as at inference.
    conditions: rows [1, S, e] of each song, see `encode_conditions`.
    noise, times: [B, T, 64] and [B], float32.
    """
    context = context_latents(network, None, len(data), data.shape[1], data.device)
    rows, mask = stack_conditions(conditions)
    prepared = network.decoder.prepare(context, rows, mask)
    noisy = torch.lerp(data, noise, times[:, None, None])
    return F.mse_loss(network.decoder(noisy, times, prepared), noise - data)


@contextmanager
def recomputed_layers(network: AceStepModel) -> Iterator[None]:
    """Keep no activations inside the layers of the transformer, and compute them again for the gradient."""
    layers, before = network.decoder.layers, network.decoder.layers.stream
    layers.stream = _recomputed
    try:
        yield
    finally:
        layers.stream = before


def _recomputed(layers: LayerStack) -> Iterable[Any]:
    return (_RecomputedLayer(layer) for layer in layers)


class _RecomputedLayer:
    """A layer whose call is checkpointed. Everything else is the layer's own."""

    def __init__(self, layer: nn.Module):
        self._layer = layer

    def __call__(self, *inputs: Any) -> Tensor:
        run: Callable[..., Tensor] = self._layer
        return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)
