"""An adapter in memory, in one form for every dialect and kind."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, NonFiniteError, RequestError, first_line
from ..models.model import AceStepModel
from .factors import Factors
from .module_paths import Group, group_of

WIDTHS = {256: "nano", 2048: "2B", 2560: "XL"}
_INPUTS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")  # of the transformer's width
_LISTED = 5  # unmatched keys in a report


@dataclass(frozen=True, eq=False)
class ModuleAdapter:
    """The adapter of one module.

    path: in the AceStepModel, such as "decoder.layers.0.self_attn.q_proj".
    factors: of the weight, or None if the adapter changes the bias alone.
    alpha: None if neither file nor config has one. source: where alpha comes from.
    scale: the factor of the product, 1 without an alpha.
    magnitude: of DoRA, one number per output, or per input if `by_input`.
    bias: difference of the bias, float32.
    """

    path: str
    factors: Factors | None
    alpha: float | None = None
    source: str = ""
    scale: float = 1.0
    magnitude: Tensor | None = None
    by_input: bool = False
    bias: Tensor | None = None

    @property
    def group(self) -> Group:
        return group_of(self.path)

    @property
    def kind(self) -> str:
        kind = "bias" if self.factors is None else self.factors.kind
        return kind if self.magnitude is None else "DoRA" if kind == "LoRA" else f"{kind} with DoRA"

    @property
    def width(self) -> int | None:
        """The width of the transformer that the adapter was trained on, if the module shows it."""
        leaf = self.path.rpartition(".")[2]
        if self.factors is None or not self.path.startswith("decoder."):
            return None
        if leaf in _INPUTS and self.factors.kind != "full difference":
            return self.factors.shape[1]
        return self.factors.shape[0] if leaf in ("o_proj", "down_proj", "condition_embedder") else None

    def delta(self, weight: Tensor) -> Tensor:
        """Return the difference from `weight` at strength 1, float32, in the shape of the weight.

        weight: the module's weight, of any floating dtype. Only DoRA uses its values. Raises NonFiniteError.
        """
        assert self.factors is not None, "only the bias changes"
        difference = self.factors.product(weight.device).reshape(weight.shape).mul_(self.scale)
        if self.magnitude is not None:
            merged = weight.float() + difference
            difference += merged * (self._gain(merged) - 1)
        if not difference.isfinite().all():
            raise NonFiniteError(f"adapter: the difference of {self.path} is not finite; its file may be damaged")
        return difference

    def _gain(self, merged: Tensor) -> Tensor:
        """Return DoRA's factor of each row or column: the magnitude, divided by the norm."""
        assert self.magnitude is not None
        axes = [axis for axis in range(merged.dim()) if axis != int(self.by_input)]
        exact = torch.float64 if merged.device.type in ("cpu", "cuda") else torch.float32
        norm = torch.linalg.vector_norm(merged, dim=axes, keepdim=True, dtype=exact)
        magnitude = self.magnitude.to(torch.float32).to(merged.device).reshape(norm.shape)
        return torch.where(norm > 0, magnitude / norm, 1.0).float()


@dataclass(frozen=True)
class AdapterReport:
    """The changes of an adapter to a model.

    kinds, ranks, alphas, scales, sources: the different values of its modules.
    matched, total: modules of the adapter that the model has, and all.
    groups: number of changed modules.
    unmatched: keys of the file that belong to no module.
    """

    name: str
    kinds: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    scales: tuple[float, ...]
    sources: tuple[str, ...]
    matched: int
    total: int
    groups: Mapping[Group, int]
    unmatched: tuple[str, ...]
    trigger: tuple[str, ...]

    def settings(self) -> str:
        """Return kinds, ranks and alphas as text."""
        alpha = f"alpha {_span(self.alphas)} ({', '.join(self.sources)})" if self.alphas else "no alpha"
        kinds = " and ".join(self.kinds) + (f" rank {_span(self.ranks)}" if self.ranks else "")
        return f"{kinds}, {alpha}, scale {_span(self.scales)}" if self.ranks or self.alphas else kinds

    def unmatched_names(self) -> str:
        """Return the first of the unmatched keys as text."""
        return ", ".join(self.unmatched[:_LISTED]) + (", …" if len(self.unmatched) > _LISTED else "")

    def __str__(self) -> str:
        groups = ", ".join(f"{group.label} {count}" for group, count in self.groups.items())
        parts = [self.settings(), f"{self.matched} of {self.total} modules: {groups}"]
        if self.trigger:
            parts.append(f"trigger words: {', '.join(self.trigger)}")
        if self.unmatched:
            parts.append(f"{len(self.unmatched)} unmatched keys: {self.unmatched_names()}")
        return f"{self.name}: {'; '.join(parts)}"


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter of the diffusion model. `read_adapter` returns one.

    name: the file's or folder's name. path: the file or folder.
    modules: by their path in the AceStepModel.
    unmatched: keys that belong to no module of any ACE-Step 1.5 model, and `unmatched_modules`, the number of modules
        that they name.
    trigger: words that the caption needs, from the header.
    files: the files that the adapter was read from.
    """

    name: str
    path: Path
    modules: Mapping[str, ModuleAdapter]
    unmatched: tuple[str, ...] = ()
    unmatched_modules: int = 0
    trigger: tuple[str, ...] = ()
    files: tuple[Path, ...] = field(default=())

    @cached_property
    def sha256(self) -> str:
        """The hash of the files, see `files_hash`."""
        return files_hash(self.files)

    @property
    def width(self) -> int | None:
        """The width of the transformer that the adapter was trained on."""
        widths = Counter(module.width for module in self.modules.values() if module.width is not None)
        return widths.most_common(1)[0][0] if widths else None

    def delta(self, path: str, weight: Tensor) -> Tensor:
        """Return the difference of a module's weight at strength 1, see `ModuleAdapter.delta`."""
        return self.modules[path].delta(weight)

    def summary(self) -> AdapterReport:
        """Return the report for a model that has every module."""
        return self._report(tuple(self.modules.values()))

    def report(self, network: AceStepModel) -> AdapterReport:
        """Return what the adapter changes in a model, whose tensors may be on the meta device.

        Raises RequestError if the adapter does not fit the model.
        """
        present = dict(network.named_modules())
        width, needed = self.width, network.config.hidden_size
        if width is not None and width != needed:
            raise RequestError(
                f"adapter {self.name}: was trained on {_model_name(width)}, and this model is {_model_name(needed)}; "
                "choose a model or an adapter of the same size"
            )
        self._check_layers(network)
        matched = tuple(module for path, module in self.modules.items() if _has(present, path))
        for module in matched:
            self._check_shapes(module, present[module.path])
        if not matched:
            raise RequestError(f"adapter {self.name}: matches no module of this model")
        return self._report(matched)

    def _check_layers(self, network: AceStepModel) -> None:
        layers = len(network.decoder.layers)
        numbers = [int(path.split(".")[2]) for path in self.modules if path.startswith("decoder.layers.")]
        if numbers and max(numbers) >= layers:
            raise RequestError(
                f"adapter {self.name}: was trained on a model of at least {max(numbers) + 1} layers, and this model "
                f"has {layers}"
            )

    def _check_shapes(self, module: ModuleAdapter, layer: nn.Module) -> None:
        weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
        expected = (len(weight), weight[0].numel())
        if module.factors is not None and module.factors.shape != expected:
            raise RequestError(
                f"adapter {self.name}: {module.path} is {list(module.factors.shape)}, and the model's is "
                f"{list(expected)}; the adapter belongs to another model"
            )
        if module.magnitude is not None and module.magnitude.numel() != weight.shape[1 if module.by_input else 0]:
            raise RequestError(
                f"adapter {self.name}: the magnitude of {module.path} has {module.magnitude.numel()} values for a "
                f"weight of {list(weight.shape)}"
            )
        if module.bias is not None and (bias is None or bias.shape != module.bias.shape):
            raise RequestError(f"adapter {self.name}: its bias of {module.path} does not fit the model")

    def _report(self, matched: tuple[ModuleAdapter, ...]) -> AdapterReport:
        weights = [module for module in matched if module.factors is not None]
        ranks = {module.factors.rank for module in matched if module.factors is not None}
        counts = Counter(module.group for module in matched)
        found = {module.path for module in matched}
        return AdapterReport(
            name=self.name,
            kinds=tuple(dict.fromkeys(module.kind for module in matched)),
            ranks=tuple(sorted(rank for rank in ranks if rank is not None)),
            alphas=tuple(sorted({module.alpha for module in weights if module.alpha is not None})),
            scales=tuple(sorted({module.scale for module in weights})),
            sources=tuple(dict.fromkeys(module.source for module in weights if module.source)),
            matched=len(matched),
            total=len(self.modules) + self.unmatched_modules,
            groups={group: counts[group] for group in Group if counts[group]},
            unmatched=self.unmatched + tuple(path for path in self.modules if path not in found),
            trigger=self.trigger,
        )


def files_hash(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the bytes of files, in hexadecimal digits. Raises CheckpointError."""
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error
    return digest.hexdigest()


def _has(modules: Mapping[str, nn.Module], path: str) -> bool:
    return isinstance(getattr(modules.get(path), "weight", None), Tensor)


def _model_name(width: int) -> str:
    return f"{WIDTHS[width]} (width {width})" if width in WIDTHS else f"a model of width {width}"


def _span(values: Sequence[float]) -> str:
    """Return one value, or the smallest and the largest."""
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"
