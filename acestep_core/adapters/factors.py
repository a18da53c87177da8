"""The factors of a weight difference: low-rank, Hadamard, Kronecker, or the difference itself.

Each class checks in `__post_init__` that its tensors fit each other, with a ValueError. `shape` is that of the weight
as a matrix: outputs, and inputs times the kernel size. `product` computes the matrix in float32, without the scale of
the adapter.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor


class Factors(Protocol):
    """The common form of all kinds. `rank` is None if no factor has one."""

    @property
    def kind(self) -> str: ...
    @property
    def rank(self) -> int | None: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    def product(self, device: torch.device) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LowRank:
    """LoRA: up [out, rank] times down [rank, in, kernel …]; with a core, down has no kernel and core has it."""

    up: Tensor
    down: Tensor
    core: Tensor | None = None
    kind = "LoRA"

    def __post_init__(self) -> None:
        _require(self.up.dim() >= 2 and self.down.dim() >= 2, "lora_A and lora_B are no matrices")
        _require(self.up[0].numel() == len(self.down) > 0, "lora_A and lora_B have different ranks")
        if self.core is not None:
            _check_core(self.core, len(self.down))
            _require(self.down[0].numel() == self.down.shape[1], "lora_down has a kernel beside lora_mid")

    @property
    def rank(self) -> int:
        return len(self.down)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.up), self.down[0].numel() * _kernel(self.core)

    def product(self, device: torch.device) -> Tensor:
        up, down = (_float(factor, device).flatten(1) for factor in (self.up, self.down))
        return up @ down if self.core is None else _tucker(self.core, up.T, down, device)


@dataclass(frozen=True, eq=False)
class Hadamard:
    """LoHa: the elementwise product of two low-rank products a [out, rank] times b [rank, in].

    With cores [rank, rank, kernel …], each a is [rank, out].
    """

    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]
    cores: tuple[Tensor, Tensor] | None = None
    kind = "LoHa"

    def __post_init__(self) -> None:
        tensors = (*self.first, *self.second)
        _require(all(tensor.dim() == 2 and tensor.numel() for tensor in tensors), "hada_* are no matrices")
        for a, b in (self.first, self.second):
            ranks = (a.shape[0] if self.cores else a.shape[1], b.shape[0], self.rank)
            _require(len(set(ranks)) == 1, "hada_* have different ranks")
        for core in self.cores or ():
            _check_core(core, self.rank)
        shapes = [(a.shape[1] if self.cores else a.shape[0], b.shape[1]) for a, b in (self.first, self.second)]
        _require(shapes[0] == shapes[1], "hada_w1 and hada_w2 have different shapes")
        _require(self.cores is None or self.cores[0].shape == self.cores[1].shape, "hada_t1 and hada_t2 differ")

    @property
    def rank(self) -> int:
        return len(self.first[1])

    @property
    def shape(self) -> tuple[int, int]:
        a, b = self.first
        return a.shape[1 if self.cores else 0], b.shape[1] * _kernel(self.cores[0] if self.cores else None)

    def product(self, device: torch.device) -> Tensor:
        pairs = [tuple(_float(factor, device) for factor in pair) for pair in (self.first, self.second)]
        if self.cores is None:
            first, second = (a @ b for a, b in pairs)
        else:
            first, second = (_tucker(core, a, b, device) for core, (a, b) in zip(self.cores, pairs, strict=True))
        return first.mul_(second)


@dataclass(frozen=True, eq=False)
class Kronecker:
    """LoKr: the Kronecker product of w1 and w2. Each is one matrix, or a pair whose product is the matrix.

    w2 may have a kernel, or a core [rank, rank, kernel …]. With a core, its pair is [rank, out] and [rank, in].
    """

    w1: tuple[Tensor, ...]
    w2: tuple[Tensor, ...]
    core: Tensor | None = None
    kind = "LoKr"

    def __post_init__(self) -> None:
        _require(all(tensor.numel() for tensor in (*self.w1, *self.w2)), "lokr_* are empty")
        _require(all(tensor.dim() == 2 for tensor in self.w1), "lokr_w1 is no matrix")
        _require(len(self.w1) == 1 or self.w1[0].shape[1] == len(self.w1[1]), "lokr_w1_a and lokr_w1_b differ in rank")
        if len(self.w2) == 1:
            _require(self.w2[0].dim() >= 2 and self.core is None, "lokr_w2 is no matrix")
            return
        _require(all(tensor.dim() == 2 for tensor in self.w2), "lokr_w2_a and lokr_w2_b are no matrices")
        rank = self.w2[0].shape[1] if self.core is None else len(self.w2[0])
        _require(rank == len(self.w2[1]), "lokr_w2_a and lokr_w2_b differ in rank")
        if self.core is not None:
            _check_core(self.core, rank)

    @property
    def rank(self) -> int | None:
        pair = next((pair for pair in (self.w2, self.w1) if len(pair) == 2), None)
        return None if pair is None else len(pair[1])

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = len(self.w1[0]), self.w1[-1].shape[1]
        if len(self.w2) == 1:
            return rows * len(self.w2[0]), columns * self.w2[0][0].numel()
        outputs = self.w2[0].shape[0 if self.core is None else 1]
        return rows * outputs, columns * self.w2[1].shape[1] * _kernel(self.core)

    def product(self, device: torch.device) -> Tensor:
        w1 = [_float(factor, device) for factor in self.w1]
        w2 = [_float(factor, device).flatten(1) for factor in self.w2]
        left = w1[0] if len(w1) == 1 else w1[0] @ w1[1]
        if self.core is not None:
            return torch.kron(left, _tucker(self.core, w2[0], w2[1], device))
        return torch.kron(left, w2[0] if len(w2) == 1 else w2[0] @ w2[1])


@dataclass(frozen=True, eq=False)
class Difference:
    """The difference itself, in the shape of the weight."""

    values: Tensor
    kind = "full difference"

    def __post_init__(self) -> None:
        _require(self.values.dim() > 0 and self.values.numel() > 0, "diff is empty")

    @property
    def rank(self) -> None:
        return None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.values), self.values[0].numel()

    def product(self, device: torch.device) -> Tensor:
        return _float(self.values, device).flatten(1) if self.values.dim() > 1 else _float(self.values, device)[:, None]


def _tucker(core: Tensor, a: Tensor, b: Tensor, device: torch.device) -> Tensor:
    """Return the weight [out, in * kernel] of a core [rank, rank, kernel …], a [rank, out] and b [rank, in]."""
    return torch.einsum("ijk,io,jn->onk", _float(core, device).flatten(2), a, b).flatten(1)


def _kernel(core: Tensor | None) -> int:
    return 1 if core is None else prod(core.shape[2:])


def _check_core(core: Tensor, rank: int) -> None:
    _require(core.dim() > 2 and core.shape[:2] == (rank, rank) and core.numel() > 0, "the core has another rank")


def _float(factor: Tensor, device: torch.device) -> Tensor:
    return factor.to(torch.float32).to(device)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
