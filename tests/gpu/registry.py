"""The checks by name, and the lines that they yield."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .context import Context

PASSED, FAILED, NOT_RUN, MEASURED = "ok", "FAILED", "not run", "info"


@dataclass(frozen=True)
class Line:
    """A line of the table.

    what: the compared or measured thing.
    value, bound: as text, with units. number: the measured value for the JSON, if it is a number.
    result: PASSED, FAILED, NOT_RUN or MEASURED (a number without a bound).
    reason: why a bound is what it is, why a line failed, or why it could not run.
    """

    what: str
    result: str
    value: str = ""
    bound: str = ""
    reason: str = ""
    number: float | None = None


class NotHere(Exception):
    """This device cannot run the check. The message is the reason."""


def at_most(what: str, value: float, bound: float, unit: str = "", reason: str = "") -> Line:
    """Return a line that fails if `value` is above `bound` or not a number."""
    return Line(
        what,
        PASSED if value <= bound else FAILED,
        shown(value, unit),
        f"≤ {shown(bound, unit)}",
        reason,
        _finite(value),
    )


def at_least(what: str, value: float, bound: float, unit: str = "", reason: str = "") -> Line:
    """Return a line that fails if `value` is below `bound` or not a number."""
    return Line(
        what,
        PASSED if value >= bound else FAILED,
        shown(value, unit),
        f"≥ {shown(bound, unit)}",
        reason,
        _finite(value),
    )


def is_true(what: str, value: bool, yes: str = "yes", no: str = "no", reason: str = "") -> Line:
    """Return a line that fails if `value` is false."""
    return Line(what, PASSED if value else FAILED, yes if value else no, yes, reason)


def measured(what: str, value: float | str, unit: str = "", reason: str = "") -> Line:
    """Return a line without a bound."""
    if isinstance(value, str):
        return Line(what, MEASURED, value, reason=reason)
    return Line(what, MEASURED, shown(value, unit), reason=reason, number=_finite(value))


def not_run(what: str, reason: str) -> Line:
    """Return a line for something that could not run."""
    return Line(what, NOT_RUN, reason=reason)


def _finite(value: float) -> float | None:
    """Return the number for the JSON, which knows no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None


def shown(value: float, unit: str = "") -> str:
    """Return a number with its unit. Bytes are shown as MiB or GiB."""
    if unit == "B":
        return f"{value / 2**30:.2f} GiB" if abs(value) >= 2**30 else f"{value / 2**20:.1f} MiB"
    number = f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


CheckFunction = Callable[["Context"], Iterator[Line]]


@dataclass(frozen=True)
class Check:
    """A named function that yields lines.

    title: what the check shows, in words for a stranger.
    seconds: the time that it may take on a recent card. After four times as much it counts as hung.
    """

    name: str
    title: str
    seconds: float
    run: CheckFunction


CHECKS: dict[str, Check] = {}


def check(name: str, title: str, seconds: float) -> Callable[[CheckFunction], CheckFunction]:
    """Register a generator function as a check. Its lines count even if an exception ends it."""

    def register(function: CheckFunction) -> CheckFunction:
        if name in CHECKS:
            raise ValueError(f"two checks have the name {name}")
        CHECKS[name] = Check(name, title, seconds, function)
        return function

    return register


def selected(patterns: list[str] | None) -> list[Check]:
    """Return the checks whose name or group (`parity` of `parity.dit`) is given, or all. Raises ValueError."""
    if not patterns:
        return list(CHECKS.values())
    unknown = [one for one in patterns if not any(_matches(name, one) for name in CHECKS)]
    if unknown:
        raise ValueError(f"--only: no check is named {', '.join(unknown)}; the names are {', '.join(CHECKS)}")
    return [each for name, each in CHECKS.items() if any(_matches(name, one) for one in patterns)]


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or name.startswith(f"{pattern}.")
