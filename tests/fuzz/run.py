"""Run inputs against their targets and count the outcomes."""

from __future__ import annotations

import logging
import random
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from acestep_core.errors import AceStepError

Work = Callable[[], "str | None"]
Target = Callable[[random.Random, Path], Work]

DEADLINE = 10.0  # seconds, also on a machine with much else to do
MEMORY = 8 << 30  # bytes: an input that asks for more gets a MemoryError


class Outcome(Enum):
    SENTENCE = "sentence"
    ACCEPTED = "accepted"
    TRACEBACK = "traceback"
    HANG = "hang"
    WRONG = "silently wrong"


FAULTS = (Outcome.TRACEBACK, Outcome.HANG, Outcome.WRONG)


class TooLate(BaseException):
    """The deadline of an input. No `except Exception` catches it."""


@dataclass
class Report:
    """The outcomes by target, and a text for each fault."""

    counts: dict[str, Counter[Outcome]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def table(self) -> str:
        rows = [f"{'target':<22}" + "".join(f"{outcome.value:>16}" for outcome in Outcome)]
        total: Counter[Outcome] = Counter()
        for name, counts in sorted(self.counts.items()):
            rows.append(f"{name:<22}" + "".join(f"{counts[outcome]:>16}" for outcome in Outcome))
            total.update(counts)
        return "\n".join([*rows, f"{'total':<22}" + "".join(f"{total[outcome]:>16}" for outcome in Outcome)])


def run(targets: Mapping[str, Target], folder: Path, inputs: int, seed: int, only: int | None = None) -> Report:
    """Run inputs 0 to `inputs` − 1, or one of them, each in its own sub-folder of `folder`."""
    report, names = Report(), sorted(targets)
    logging.getLogger("acestep").addHandler(quiet := logging.NullHandler())
    logging.getLogger("acestep").propagate = False
    try:
        with limited_memory():
            for number in range(inputs) if only is None else [only]:
                rng = random.Random(f"{seed}/{number}")
                name = rng.choice(names)
                place = folder / str(number)
                place.mkdir()
                outcome, detail = classify(targets[name](rng, place))
                report.counts.setdefault(name, Counter())[outcome] += 1
                if outcome in FAULTS or only is not None:
                    report.faults.append(f"input {number}, {name}: {outcome.value}: {detail}")
                shutil.rmtree(place)
    finally:
        logging.getLogger("acestep").propagate = True
        logging.getLogger("acestep").removeHandler(quiet)
    return report


def classify(work: Work) -> tuple[Outcome, str]:
    """Return the outcome of one input, and its sentence, traceback or fault."""
    try:
        with deadline(DEADLINE):
            problem = work()
    except TooLate:
        return Outcome.HANG, "".join(traceback.format_exc(limit=-6))
    except AceStepError as error:
        text = str(error)
        return (Outcome.TRACEBACK if len(text.splitlines()) != 1 else Outcome.SENTENCE), text
    except KeyboardInterrupt:
        raise
    except BaseException:
        return Outcome.TRACEBACK, "".join(traceback.format_exc(limit=-6))
    return (Outcome.ACCEPTED, "") if problem is None else (Outcome.WRONG, problem)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TooLate in the block after that time. Does nothing on Windows, which has no timer signal."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TooLate

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def limited_memory() -> Iterator[None]:
    """Limit the memory of this process on Linux, so that a hostile input cannot stop the machine."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(ValueError):  # the limit is lower already
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
