"""An adapter as plain values, for the recipe of a song."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PureWindowsPath
from typing import Any

from ..errors import RequestError, shown

_MAX_ADAPTERS = 100


@dataclass(frozen=True)
class RecordedAdapter:
    """An adapter that a song was made with.

    name: of the file or folder, without a path.
    sha256: hash of its bytes, in hexadecimal digits.
    strength, groups: as in `AdapterUse`, with groups by their values.

    Raises RequestError.
    """

    name: str
    sha256: str
    strength: float = 1.0
    groups: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("name", "sha256"):
            if not isinstance(getattr(self, name), str):
                raise RequestError(f"loras: {name} must be text, got {shown(getattr(self, name))}")
        inside = PureWindowsPath(self.name)  # parses both kinds of slash, drives and network shares
        if len(inside.parts) != 1 or inside.anchor or inside.parts[0] == ".." or "\0" in self.name:
            raise RequestError(f"loras: name must be a file's name without a folder, got {shown(self.name)}")
        if not isinstance(self.groups, Mapping):
            raise RequestError(f"loras: groups must be an object of numbers, got {shown(self.groups)}")
        for value in (self.strength, *self.groups.values()):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise RequestError(f"loras: a strength must be a number, got {shown(value)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON."""
        values = {"name": self.name, "strength": self.strength, "sha256": self.sha256}
        return {**values, "groups": dict(self.groups)} if self.groups else values

    @classmethod
    def from_list(cls, values: object) -> tuple[RecordedAdapter, ...]:
        """Read a list of results of `to_dict`. Unknown names are ignored. Raises RequestError."""
        if not isinstance(values, (list, tuple)) or len(values) > _MAX_ADAPTERS:
            raise RequestError(f"loras must be a list of up to {_MAX_ADAPTERS} adapters, got {shown(values)}")
        return tuple(cls._from_dict(each) for each in values)

    @classmethod
    def _from_dict(cls, values: object) -> RecordedAdapter:
        if not isinstance(values, Mapping) or not {"name", "sha256"} <= values.keys():
            raise RequestError(f"loras: an adapter must have a name and a sha256, got {shown(values)}")
        return cls(**{name: values[name] for name in ("name", "sha256", "strength", "groups") if name in values})
