"""The settings of an adapter beside its tensors: `adapter_config.json` of PEFT, or JSON in the header of a file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import CheckpointError, shown
from ..files import parse_json

KINDS = ("LORA", "LOHA", "LOKR")
MAX_SCALE = 1e6  # of alpha
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that also change the model
_LITERAL = re.compile(r"[\w.\-]+")
_SIMPLE = re.compile(r"(?:[\w.^$\\\[\]\-|()]|[*+?](?![*+?{])){1,200}")
_QUANTIFIED_GROUP = re.compile(r"\)[*+?{]")
_MAX_PATTERNS = 64  # regular expressions; plain names are unlimited


@dataclass(frozen=True)
class AdapterConfig:
    """Alpha and rank of each module.

    source: the name of the file, for reports.
    rank: the rank that the trainer set, for modules whose tensors do not show it.
    patterns: alpha by the name of a module, or by a regular expression that the end of its name matches.
    """

    source: str = ""
    alpha: float | None = None
    rank: int | None = None
    patterns: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    rank_stabilized: bool = False

    def alpha_of(self, module: str) -> tuple[float | None, str]:
        """Return alpha and its source for a module's name in the file."""
        pattern = _first_match(self.patterns, module)
        if pattern is not None:
            return self.patterns[pattern], f"alpha_pattern of {self.source}"
        return self.alpha, self.source

    def rank_of(self, module: str) -> int | None:
        pattern = _first_match(self.ranks, module)
        return self.rank if pattern is None else self.ranks[pattern]


def parse_config(text: str, source: str) -> AdapterConfig:
    """Read the text of an `adapter_config.json`. Raises CheckpointError."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{source} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{source} should hold a JSON object, it holds {type(values).__name__}")
    return _config(values, source)


def config_of_header(metadata: Mapping[str, str]) -> AdapterConfig:
    """Read the settings that a trainer put into the header of a safetensors file, or none."""
    for key in ("lora_adapter_metadata", "lokr_config", "loha_config", "lycoris_config"):
        try:
            values = parse_json(metadata[key])
        except (KeyError, ValueError):
            continue
        if isinstance(values, dict):
            # diffusers puts the name of the network before each key.
            values = {name.removeprefix("transformer."): value for name, value in values.items()}
            renamed = {"r": values.get("r", values.get("linear_dim")), "alpha": values.get("linear_alpha")}
            return _config({**renamed, **values} if renamed["r"] is not None else values, f"header, {key}")
    return AdapterConfig()


def _config(values: Mapping[str, Any], source: str) -> AdapterConfig:
    kind = values.get("peft_type")
    if kind is not None and (not isinstance(kind, str) or kind.upper() not in KINDS):
        raise CheckpointError(f"{source}: peft_type {shown(kind)} is unsupported; supported are {', '.join(KINDS)}")
    start = values.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise CheckpointError(
            f"{source}: init_lora_weights {shown(start)} also changes the weights of the model; convert the adapter "
            "with PEFT (path_initial_model_for_weight_conversion)"
        )
    for name in ("layer_replication", "use_qalora", "use_bdlora"):
        if values.get(name):
            raise CheckpointError(f"{source}: {name} is unsupported")
    alpha = values.get("lora_alpha", values.get("alpha"))
    rank = values.get("r")
    alphas = _pattern_values(values, "alpha_pattern", source)
    ranks = _pattern_values(values, "rank_pattern", source)
    return AdapterConfig(
        source=source,
        alpha=None if alpha is None else _number(alpha, "lora_alpha", source),
        rank=None if rank is None else _rank(rank, "r", source),
        patterns={name: _number(value, "alpha_pattern", source) for name, value in alphas.items()},
        ranks={name: _rank(value, "rank_pattern", source) for name, value in ranks.items()},
        rank_stabilized=bool(values.get("use_rslora")),
    )


def _pattern_values(values: Mapping[str, Any], name: str, source: str) -> Mapping[str, Any]:
    given = values.get(name) or {}
    if not isinstance(given, dict):
        raise CheckpointError(f"{source}: {name} should be a JSON object, it is {shown(given)}")
    expressions = [pattern for pattern in given if not _LITERAL.fullmatch(pattern)]
    for pattern in expressions:
        # A hostile expression can take forever: no group is repeated, and few characters are.
        simple = _SIMPLE.fullmatch(pattern) and not _QUANTIFIED_GROUP.search(pattern)
        if not simple or len(expressions) > _MAX_PATTERNS or sum(pattern.count(each) for each in "*+?") > 2:
            raise CheckpointError(f"{source}: {name} has the expression {shown(pattern)}, which is unsupported")
        try:
            re.compile(pattern)
        except re.error as error:
            raise CheckpointError(f"{source}: {name} has the expression {shown(pattern)}: {error}") from error
    return given


def _first_match(patterns: Mapping[str, Any], module: str) -> str | None:
    """Return the first pattern that matches a module's name or its end after a dot, as PEFT does."""
    if not patterns:
        return None
    parts = module.split(".")
    ends = {".".join(parts[start:]) for start in range(len(parts))}
    return next((pattern for pattern in patterns if pattern in ends or _matches(pattern, module)), None)


def _matches(pattern: str, module: str) -> bool:
    return not _LITERAL.fullmatch(pattern) and re.match(rf"(.*\.)?({pattern})$", module) is not None


def _number(value: object, name: str, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MAX_SCALE:
        raise CheckpointError(f"{source}: {name} should be a number up to {MAX_SCALE:g}, it is {shown(value)}")
    return float(value)


def _rank(value: object, name: str, source: str) -> int:
    number = _number(value, name, source)
    if number < 1 or not math.isclose(number, round(number)):
        raise CheckpointError(f"{source}: {name} should be a whole number from 1, it is {shown(value)}")
    return round(number)
