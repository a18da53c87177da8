"""The table, the verdict and the JSON file of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from acestep_core.runtime.devices import pick_device
from acestep_core.runtime.diagnosis import describe_device, describe_software

from .registry import FAILED, MEASURED, NOT_RUN, PASSED
from .runner import CheckResult

Machine = Mapping[str, Mapping[str, str]]
WHAT, VALUE, BOUND = 62, 14, 16  # widths of the columns
HEADER = f"  {'what':<{WHAT}}{'measured':>{VALUE}}{'allowed':>{BOUND}}  result"


def machine_of(device: str) -> Machine:
    """Return the facts of the software and of a device."""
    return {"software": describe_software(), "device": describe_device(pick_device(device))}


def machine_text(machine: Machine) -> str:
    """Return the facts of the machine, one a line."""
    return "\n".join(f"  {name}: {value}" for part in machine.values() for name, value in part.items())


def check_text(result: CheckResult) -> str:
    """Return the part of the table for one check."""
    lines = [f"{result.name}: {result.title} ({result.seconds:.1f} s)"]
    for line in result.lines:
        lines.append(f"  {line.what:<{WHAT}}{line.value:>{VALUE}}{line.bound:>{BOUND}}  {line.result}")
        if line.reason and line.result != PASSED:
            lines.append(f"      {line.reason}")
    return "\n".join(lines)


def counts(results: Sequence[CheckResult]) -> Counter[str]:
    return Counter(line.result for result in results for line in result.lines)


def failed(results: Sequence[CheckResult]) -> list[str]:
    """Return the names of the checks with a failed line, and of those without any line."""
    return [each.name for each in results if not each.lines or any(line.result == FAILED for line in each.lines)]


def verdict(results: Sequence[CheckResult], device: str, file: Path) -> str:
    """Return the sentences at the end of a run."""
    number, broken = counts(results), failed(results)
    sentences = [
        f"{number[PASSED]} comparisons passed, {number[FAILED]} failed, {number[NOT_RUN]} could not run here, "
        f"{number[MEASURED]} numbers without a bound."
    ]
    if broken:
        sentences.append(f"VERDICT: something is broken on {device}: {', '.join(broken)}.")
        sentences.append(f"Please open an issue and attach {file}. It holds this table and no personal data.")
        sentences.append(f"To repeat these checks alone: --only {' '.join(broken)}")
    elif not number[PASSED]:
        sentences.append(f"VERDICT: nothing could be compared on {device}.")
    else:
        sentences.append(f"VERDICT: all that ran on {device} is right.")
        sentences.append(f"The numbers are in {file}. Reports of devices that work are welcome, too.")
    return "\n".join(sentences)


def exit_code(results: Sequence[CheckResult]) -> int:
    """Return 0 if something passed and nothing failed, else 1."""
    return 0 if counts(results)[PASSED] and not failed(results) else 1


def write_json(file: Path, machine: Machine, options: Mapping[str, object], results: Sequence[CheckResult]) -> None:
    """Write the file to send with a bug report."""
    content = {
        "report": "acestep tests.gpu",
        "machine": machine,
        "options": options,
        "counts": counts(results),
        "failed": failed(results),
        "checks": [result.to_dict() for result in results],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
