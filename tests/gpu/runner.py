"""Run checks one after the other, and turn whatever ends one into a line of its result."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from acestep_core.errors import first_line

from . import estimates, lyrics, parity, planner, songs, speed, stops, training
from .context import Context
from .registry import CHECKS, FAILED, Check, Line, NotHere, not_run

# Cheap and telling ones first, because the time may end before the last one.
ORDER = (songs, planner, lyrics, parity, stops, training, estimates, speed)
UNUSABLE = "the device works no more"
REPO = Path(__file__).resolve().parents[2]


@dataclass
class CheckResult:
    """The lines of one check, its seconds, and the traceback of an exception."""

    name: str
    title: str
    lines: list[Line] = field(default_factory=list)
    seconds: float = 0.0
    traceback: str = ""

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> CheckResult:
        return cls(**{**values, "lines": [Line(**line) for line in values["lines"]]})


def in_order(checks: Iterable[Check]) -> list[Check]:
    """Return the checks in the order of ORDER, and within a module as they stand there."""
    modules = [module.__name__ for module in ORDER]
    places = {name: (modules.index(each.run.__module__), i) for i, (name, each) in enumerate(CHECKS.items())}
    return sorted(checks, key=lambda each: places[each.name])


def run_check(each: Check, context: Context) -> CheckResult:
    """Run one check. An exception becomes a failed line, and NotHere a line with the reason."""
    result, started = CheckResult(each.name, each.title), time.perf_counter()
    try:
        for line in each.run(context):
            result.lines.append(line)
        context.device.synchronize()  # an error of the last kernel belongs to this check
    except NotHere as reason:
        result.lines.append(not_run("the rest" if result.lines else each.name, str(reason)))
    except Exception as error:
        where = "after " + result.lines[-1].what if result.lines else "at its start"
        reason = f"{type(error).__name__}: {first_line(error)}"
        result.lines.append(Line(f"an error {where}", FAILED, reason=reason))
        result.traceback = without_paths(traceback.format_exc())
    try:
        context.device.synchronize()
        context.device.release()
    except Exception as error:
        result.lines.append(Line(UNUSABLE, FAILED, reason=first_line(error)))
    result.seconds = round(time.perf_counter() - started, 2)
    return result


def run_checks(checks: Iterable[Check], context: Context, seconds: float) -> Iterator[CheckResult]:
    """Yield the result of each check. After `seconds` the remaining ones are not run."""
    end = time.perf_counter() + seconds
    for each in checks:
        if time.perf_counter() > end:
            reason = f"the time of the whole run was up; run `python -m tests.gpu --only {each.name}`"
            yield CheckResult(each.name, each.title, [not_run(each.name, reason)])
        else:
            yield run_check(each, context)


def without_paths(text: str) -> str:
    """Return a text without the folders of the user."""
    return text.replace(str(REPO), ".").replace(str(Path.home()), "~")
