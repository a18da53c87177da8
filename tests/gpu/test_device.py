"""The command on the best device of this machine, in its own process. Without a GPU it is a quick run on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acestep_core.runtime.devices import pick_device

from .__main__ import main
from .registry import CHECKS, NOT_RUN

DEVICE = pick_device()
# On a CPU, the stages that the simulated card cannot run or that differ there. The others are in test_simulated.py.
ON_A_CPU = [
    "parity.dit",
    "parity.decode",
    "planner.graphs",
    "vae.tiles",
    "stop.leak",
    "speed.stages",
    "train.gradients",
    "train.steps",
]


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    file = tmp_path / "new" / "report.json"
    quick = ["--quick", "--only", *ON_A_CPU] if DEVICE.type == "cpu" else []
    code = main(["--device", str(DEVICE), "--out", str(file), *quick])
    out = capfd.readouterr().out
    report = json.loads(file.read_text("utf-8"))
    assert code == 0, out
    assert "VERDICT: all that ran" in out and report["failed"] == [] and report["counts"]["ok"] > 5
    names = [each["name"] for each in report["checks"]]
    assert sorted(names) == sorted(ON_A_CPU if quick else CHECKS)
    assert report["machine"]["device"]["device"] == str(DEVICE) and report["machine"]["software"]["torch"]
    if DEVICE.type == "cpu":
        lines = {each["name"]: each["lines"] for each in report["checks"]}
        for name in ("planner.graphs", "stop.leak"):
            (line,) = lines[name]
            assert line["result"] == NOT_RUN and line["reason"]
