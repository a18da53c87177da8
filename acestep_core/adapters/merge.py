"""Merge adapters into a network."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, cast

import torch
from torch import Tensor

from ..checkpoints.weights import changed_weight, set_parameter
from ..errors import RequestError, shown
from ..models.compiling import compile_parts
from ..models.layers import weight_and_bias
from ..models.model import AceStepModel
from .adapter import Adapter
from .module_paths import Group
from .recorded_adapter import RecordedAdapter

log = logging.getLogger("acestep")

MAX_STRENGTH = 100.0

# A change of a parameter: takes its value in any floating dtype and returns the new value in float32.
Change: TypeAlias = "Callable[[Tensor], Tensor]"


@dataclass(frozen=True, eq=False)
class AdapterUse:
    """An adapter with its strength: 1 is as trained, 0 is the plain model.

    groups: factors of the strength for parts of the model, 1 for the others. Keys are groups or their values.
    """

    adapter: Adapter
    strength: float = 1.0
    groups: Mapping[Group, float] | Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            groups = {Group(group): value for group, value in self.groups.items()}
        except (ValueError, AttributeError):
            known = ", ".join(group.value for group in Group)
            raise RequestError(f"adapter groups: {shown(self.groups)} has an unknown group; known: {known}") from None
        object.__setattr__(self, "groups", groups)
        for value in (self.strength, *groups.values()):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or abs(value) > MAX_STRENGTH:
                limit = f"{MAX_STRENGTH:g}"
                raise RequestError(f"adapter strength must be a number from -{limit} to {limit}, got {shown(value)}")

    def recorded(self) -> RecordedAdapter:
        """Return the values for a recipe. Raises CheckpointError if the file is gone."""
        groups = {Group(group).value: value for group, value in self.groups.items()}
        return RecordedAdapter(self.adapter.name, self.adapter.sha256, self.strength, groups)

    def strength_of(self, path: str) -> float:
        """Return the strength of a module."""
        groups = cast("Mapping[Group, float]", self.groups)
        return self.strength * groups.get(self.adapter.modules[path].group, 1.0)


def parameter_changes(network: AceStepModel, uses: Sequence[AdapterUse]) -> dict[str, Change]:
    """Return the change of each parameter that the adapters touch, by its name, and log a report of each adapter.

    Every difference refers to the weight before all changes, also with DoRA. The order of the adapters thus has no
    effect. The tensors of the network may be on the meta device. Raises RequestError if an adapter does not fit.
    """
    deltas: dict[str, list[tuple[float, Change]]] = {}
    for use in uses:
        report = use.adapter.report(network)
        missing = set(report.unmatched)
        log.info("adapter %s, strength %g", report, use.strength)
        if report.unmatched:
            log.warning("adapter %s: %d keys match no module", report.name, len(report.unmatched))
        for path, module in use.adapter.modules.items():
            strength = use.strength_of(path)
            if strength == 0 or path in missing:
                continue
            if module.factors is not None:
                deltas.setdefault(f"{path}.weight", []).append((strength, module.delta))
            if module.bias is not None:
                deltas.setdefault(f"{path}.bias", []).append((strength, partial(_same, module.bias)))
    return {name: partial(_changed, changes) for name, changes in deltas.items()}


def merge(network: AceStepModel, uses: Sequence[AdapterUse]) -> AceStepModel:
    """Return the network with the adapters merged into its weights. The given network stays as it is.

    Unchanged tensors are shared. Quantised weights are dequantised, changed and quantised again. The network must not
    be in use. Raises RequestError if an adapter does not fit, and NonFiniteError.
    """
    changes = parameter_changes(network, uses)
    merged = _shallow_copy(network)
    with torch.inference_mode(False), torch.no_grad():
        for name, change in changes.items():
            path, _, leaf = name.rpartition(".")
            layer = merged.get_submodule(path)
            stored = layer.get_parameter(leaf)
            exact = torch.empty(0, dtype=torch.float32, device=stored.device)
            weight, bias = weight_and_bias(layer, exact)
            value = weight if leaf == "weight" else bias
            quantised = leaf == "weight" and hasattr(layer, "store")
            changed = changed_weight(name, change, value, torch.float32 if quantised else stored.dtype)
            set_parameter(merged, name, changed)
    if any(part._compiled_call_impl is not None for part in network.modules()):
        compile_parts(merged)
    return merged


def _shallow_copy(network: AceStepModel) -> AceStepModel:
    """Copy the modules of a network, and share its tensors."""
    tensors = [*network.parameters(), *network.buffers()]
    if network.silence_latent is not None:
        tensors.append(network.silence_latent)
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def _changed(deltas: Sequence[tuple[float, Change]], value: Tensor) -> Tensor:
    value = value.to(torch.float32)
    result = value.clone()
    for strength, delta in deltas:
        result.add_(delta(value), alpha=strength)
    return result


def _same(difference: Tensor, value: Tensor) -> Tensor:
    return difference.to(torch.float32).to(value.device)
