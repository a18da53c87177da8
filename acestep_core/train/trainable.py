"""Trainable factors beside the linear layers of the transformer, and the adapter that they make.

The factors are float32 and compute in the dtype of the layer's input. The layer keeps its own weight, in any storage.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..adapters.adapter import Adapter, ModuleAdapter
from ..adapters.factors import Factors, Kronecker, LowRank
from ..errors import RequestError
from ..models.layers import Attention, Mlp, weight_and_bias
from ..models.model import AceStepModel
from .train_settings import TrainSettings

_LEAVES: dict[type[nn.Module], tuple[str, ...]] = {
    Attention: ("q_proj", "k_proj", "v_proj", "o_proj"),
    Mlp: ("gate_proj", "up_proj", "down_proj"),
}
_KRONECKER = 8  # largest side of the first factor of a LoKr


class TrainableFactors(nn.Module):
    """The factors of one layer. At the start their product is zero."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, layer: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        """Return the output of the layer with the adapter.

        x: the layer's input, with dropout if there is any. output: the layer's own output.
        """
        raise NotImplementedError

    def factors(self) -> Factors:
        """Return copies of the factors, in bfloat16 on the CPU."""
        raise NotImplementedError

    def module_adapter(self, path: str) -> ModuleAdapter:
        """Return the adapter of the layer at a path of the AceStepModel."""
        factors = self.factors()
        rank = factors.rank
        alpha = self.scale * rank if rank else None
        return ModuleAdapter(path, factors, alpha, "tensor", self.scale, self._magnitude())

    def _magnitude(self) -> Tensor | None:
        return None


class TrainableLowRank(TrainableFactors):
    """LoRA, or DoRA with a `magnitude` for each output."""

    def __init__(self, layer: nn.Linear, rank: int, scale: float, dora: bool, generator: torch.Generator):
        super().__init__(scale)
        rows, columns, device = layer.out_features, layer.in_features, layer.weight.device
        self.down = nn.Parameter(_uniform(rank, columns, generator).to(device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=device))
        if dora:
            with torch.no_grad():
                weight, _ = weight_and_bias(layer, self.down)
                self.magnitude = nn.Parameter(torch.linalg.vector_norm(weight, dim=1))

    def forward(self, layer: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        added = self.scale * F.linear(F.linear(x, self.down.to(x)), self.up.to(x))
        if not hasattr(self, "magnitude"):
            return output + added
        with torch.no_grad():  # as DoRA defines it, the norm is a constant for the gradient
            weight, _ = weight_and_bias(layer, self.down)
            norm = torch.linalg.vector_norm(weight + self.scale * self.up @ self.down, dim=1)
        gain = self.magnitude / norm
        bias = getattr(layer, "bias", None)
        own = output if bias is None else output - bias.to(output)
        return output + (gain - 1).to(output) * own + gain.to(output) * added

    def factors(self) -> LowRank:
        return LowRank(_stored(self.up), _stored(self.down))

    def _magnitude(self) -> Tensor | None:
        # In bfloat16 its rounding would change the weights more than a weak adapter does.
        return self.magnitude.detach().cpu().clone() if hasattr(self, "magnitude") else None


class TrainableKronecker(TrainableFactors):
    """LoKr: the Kronecker product of a small matrix `w1` and a low-rank product `w2_a` times `w2_b`."""

    def __init__(self, layer: nn.Linear, rank: int, scale: float, generator: torch.Generator):
        super().__init__(scale)
        device = layer.weight.device
        self.rows, self.columns = _divisor(layer.out_features), _divisor(layer.in_features)
        outputs, inputs = layer.out_features // self.rows, layer.in_features // self.columns
        self.w1 = nn.Parameter(_uniform(self.rows, self.columns, generator).to(device))
        self.w2_a = nn.Parameter(torch.zeros(outputs, rank, device=device))
        self.w2_b = nn.Parameter(_uniform(rank, inputs, generator).to(device))

    def forward(self, layer: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        blocks = x.unflatten(-1, (self.columns, -1))
        blocks = F.linear(F.linear(blocks, self.w2_b.to(x)), self.w2_a.to(x))  # [..., columns, outputs]
        return output + self.scale * (self.w1.to(x) @ blocks).flatten(-2)

    def factors(self) -> Kronecker:
        return Kronecker((_stored(self.w1),), (_stored(self.w2_a), _stored(self.w2_b)))


class InputDropout:
    """Dropout of the inputs of the factors.

    A mask depends on the seed, the batch and the layer alone: a resumed run and a recomputed layer have the same ones.

    batch: its number, which the training sets.
    """

    def __init__(self, share: float, seed: int):
        self.share, self.seed, self.batch = share, seed, 0

    def __call__(self, path: str, x: Tensor) -> Tensor:
        """Return the input of a layer with a share of its values set to zero, and the others scaled up."""
        seed = random.Random(f"{self.seed} dropout {self.batch} {path}").getrandbits(63)
        mask = torch.empty_like(x).bernoulli_(1 - self.share, generator=torch.Generator(x.device).manual_seed(seed))
        return x * mask / (1 - self.share)


@dataclass(frozen=True, eq=False)
class Trainable:
    """The factors of a network by the paths of their layers in the AceStepModel."""

    network: AceStepModel
    layers: dict[str, TrainableFactors]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for path, factors in self.layers.items():
            for name, parameter in factors.named_parameters():
                yield f"{path}.{name}", parameter

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    @contextmanager
    def attached(self, dropout: InputDropout | None = None) -> Iterator[None]:
        """Add the factors to the outputs of their layers within the block."""
        handles = [
            self.network.get_submodule(path).register_forward_hook(_hook(path, factors, dropout))
            for path, factors in self.layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def holding(self, factors: Mapping[str, Tensor]) -> Iterator[None]:
        """Replace the factors by others of the same names within the block."""
        before = {name: parameter.data for name, parameter in self.named_parameters()}
        try:
            for name, parameter in self.named_parameters():
                parameter.data = factors[name].to(parameter.device)
            yield
        finally:
            for name, parameter in self.named_parameters():
                parameter.data = before[name]

    def copied(self) -> dict[str, Tensor]:
        """Return copies of the factors on the CPU."""
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in self.named_parameters()}

    def adapter(self, name: str, triggers: tuple[str, ...] = ()) -> Adapter:
        """Return the adapter of the present factors."""
        modules = {path: factors.module_adapter(path) for path, factors in self.layers.items()}
        return Adapter(name, Path(name), modules, trigger=triggers)


def make_trainable(network: AceStepModel, settings: TrainSettings) -> Trainable:
    """Return new factors for the layers of the transformer that the settings choose. Freeze the network.

    Raises RequestError if a rank is larger than a layer.
    """
    network.requires_grad_(False)
    layers: dict[str, TrainableFactors] = {}
    for path in target_paths(network, settings.modules):
        layer = network.get_submodule(path)
        assert isinstance(layer, nn.Linear)
        if settings.rank > min(layer.in_features, layer.out_features):
            size = f"{layer.out_features} × {layer.in_features}"
            raise RequestError(f"rank must be at most the smaller side of {path}, {size}, got {settings.rank}")
        generator = torch.Generator().manual_seed(random.Random(f"{settings.seed} {path}").getrandbits(63))
        layers[path] = (
            TrainableKronecker(layer, settings.rank, settings.scale, generator)
            if settings.kind == "lokr"
            else TrainableLowRank(layer, settings.rank, settings.scale, settings.kind == "dora", generator)
        )
    return Trainable(network, layers)


def target_paths(network: AceStepModel, modules: str) -> list[str]:
    """Return the paths of the linear layers for a choice of `train_settings.MODULES`."""
    kinds = (Attention,) if modules == "attention" else (Attention, Mlp)
    return [
        f"decoder.{name}.{leaf}"
        for name, part in network.decoder.named_modules()
        for kind in kinds
        if isinstance(part, kind)
        for leaf in _LEAVES[kind]
    ]


def _hook(path: str, factors: TrainableFactors, dropout: InputDropout | None) -> Callable[..., Tensor]:
    def adapted(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0] if dropout is None else dropout(path, inputs[0])
        return factors(layer, x, output)

    return adapted


def _uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Draw a matrix as the layers of torch start, [rows, columns]."""
    bound = 1 / math.sqrt(columns)
    return (2 * torch.rand(rows, columns, generator=generator) - 1) * bound


def _divisor(size: int) -> int:
    return next(each for each in range(_KRONECKER, 0, -1) if size % each == 0)


def _stored(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.bfloat16).clone()
