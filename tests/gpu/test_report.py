"""Names, bounds, verdicts, and a process of checks that crashes or hangs."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from . import __main__ as command
from .bounds import relative_rms, rounding_bound
from .registry import (
    CHECKS,
    FAILED,
    MEASURED,
    NOT_RUN,
    PASSED,
    Line,
    at_least,
    at_most,
    is_true,
    measured,
    not_run,
    selected,
    shown,
)
from .report import check_text, exit_code, failed, verdict
from .runner import CheckResult, in_order

CPU = torch.device("cpu")


def test_lines_compare_with_their_bounds():
    assert [at_most("x", value, 2).result for value in (1, 2, 3, math.nan)] == [PASSED, PASSED, FAILED, FAILED]
    assert [at_least("x", value, 2).result for value in (1, 2, math.nan)] == [FAILED, PASSED, FAILED]
    assert [is_true("x", value).result for value in (True, False)] == [PASSED, FAILED]
    assert measured("x", 3.0).result == MEASURED and not_run("x", "no card").reason == "no card"
    assert [shown(2**30 * 1.5, "B"), shown(2**20, "B"), shown(0.00123), shown(1234.0, "tokens/s")] == [
        "1.50 GiB", "1.0 MiB", "0.00123", "1,234 tokens/s",
    ]  # fmt: skip


def test_errors_are_relative_and_bounds_follow_the_dtype():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert relative_rms(x, x) == 0 and relative_rms(1.1 * x, x) == pytest.approx(0.1)
    assert relative_rms(x[:9], x) == relative_rms(x * math.nan, x) == math.inf
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        bound = rounding_bound(dtype, 1, 1)
        assert relative_rms(x.to(dtype).float(), x) < bound < 4e-2
    # A single rounding to bfloat16 is beyond what float32 explains in four layers.
    assert relative_rms(x.bfloat16().float(), x) > 10 * rounding_bound(torch.float32, 64, 6144)


def test_checks_are_selected_by_name_and_group():
    assert selected(None) == list(CHECKS.values())
    assert [each.name for each in selected(["vae.tiles"])] == ["vae.tiles"]
    assert {each.name.split(".")[0] for each in selected(["parity", "stop"])} == {"parity", "stop"}
    with pytest.raises(ValueError, match="--only: no check is named pari"):
        selected(["pari"])
    assert [each.name for each in in_order(selected(["parity.dit", "song"]))][0].startswith("song")
    assert command.main(["--only", "nothing"]) == 2


def test_a_run_without_failures_is_right(tmp_path):
    good, skipped = at_most("x", 1, 2), not_run("y", "no card")
    results = [CheckResult("a.b", "something", [good, skipped])]
    text = verdict(results, "a card", tmp_path / "r.json")
    assert exit_code(results) == 0 and "all that ran on a card is right" in text and "1 could not run" in text
    assert "no card" in check_text(results[0])


@pytest.mark.parametrize("lines", [[Line("x", FAILED, reason="because")], []])
def test_a_failed_line_or_none_at_all_is_a_failure(tmp_path, lines):
    results = [CheckResult("c", "fine", [at_most("x", 1, 2)]), CheckResult("a.b", "something", lines)]
    assert failed(results) == ["a.b"] and exit_code(results) == 1
    assert "something is broken on a card: a.b" in verdict(results, "a card", tmp_path / "r.json")


def test_nothing_compared_is_no_success(tmp_path):
    results = [CheckResult("a.b", "something", [not_run("y", "no card")])]
    assert exit_code(results) == 1 and "nothing could be compared" in verdict(results, "a card", tmp_path / "r.json")


WORKER = """
import json, os, sys, time
MARK = {mark!r}
for name in sys.argv[1:]:
    print(MARK + json.dumps({{"start": name}}), flush=True)
    print("a line of a library", flush=True)
    if name == "song.dtypes":
        print("illegal address", file=sys.stderr, flush=True)
        os._exit(3)
    if name == "vae.tiles":
        time.sleep(60)
    lines = [{{"what": "x", "result": "ok"}}]
    if name == "option.fp8":
        lines.append({{"what": {unusable!r}, "result": "FAILED"}})
    print(MARK + json.dumps({{"result": {{"name": name, "title": "t", "lines": lines}}}}), flush=True)
"""


@pytest.fixture
def worker(monkeypatch):
    """Replace the process of the checks by one that crashes in `song.dtypes` and hangs in `vae.tiles`."""
    script = WORKER.format(mark=command.MARK, unusable=command.UNUSABLE)
    monkeypatch.setattr(
        command, "worker_command", lambda device, quick, seconds, names: [sys.executable, "-c", script, *names]
    )
    monkeypatch.setattr(command, "LEAST", 1.0)
    monkeypatch.setattr(command, "HUNG", 0)


def test_a_crash_a_hang_and_a_lost_device_are_lines_and_the_rest_runs(worker):
    names = ["song.same_seed", "song.dtypes", "option.fp8", "vae.tiles", "planner.text"]
    results = {each.name: each for each in command.supervised([CHECKS[name] for name in names], CPU, True)}
    assert list(results) == names
    assert [results[name].lines[0].result for name in names] == [PASSED, FAILED, PASSED, FAILED, PASSED]
    assert "code 3" in results["song.dtypes"].lines[0].reason and "illegal address" in results["song.dtypes"].traceback
    assert "did not end" in results["vae.tiles"].lines[0].reason


def test_a_process_that_cannot_start_ends_the_run(monkeypatch):
    command_line = [sys.executable, "-c", "import sys; sys.exit('no such library')"]
    monkeypatch.setattr(command, "worker_command", lambda *_: command_line)
    first, second = command.supervised([CHECKS["song.dtypes"], CHECKS["vae.tiles"]], CPU, True)
    assert first.lines[0].result == FAILED and "no such library" in first.traceback
    assert second.lines[0].result == NOT_RUN
