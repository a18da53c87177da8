"""The checks of `inside/`, which import ComfyUI and the pack in one process, each as a test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.comfyui import find_comfyui
from tests.support.tiny_planner import write_qwen3, write_tiny_planner

from .server import REPO

HERE = Path(__file__)
INSIDE = HERE.with_name("inside")
CHECKS = {
    path.stem: re.findall(r"^def (check_\w+)", path.read_text("utf-8"), re.MULTILINE)
    for path in sorted(INSIDE.glob("*.py"))
    if path.stem not in ("__init__", "run", "world")
}


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """The results of the checks of all modules with selected tests."""
    modules = {item.callspec.params["check"].split(".")[0] for item in request.session.items if item.path == HERE}
    folder = tmp_path_factory.mktemp("inside")
    models = folder / "models"
    write_tiny_planner(models / "acestep-5Hz-lm-tiny")
    write_qwen3(models / "text-encoder", rows=151_669)
    write_qwen3(models / "odd", rows=1000)
    process = subprocess.run(
        [sys.executable, "-B", str(INSIDE / "run.py"), str(find_comfyui()), str(REPO), *sorted(modules)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=3000,  # six minutes of work, on a machine that may have much else to do
    )
    assert process.returncode == 0, process.stderr[-6000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.timeout(3600)  # the fixture runs all checks
@pytest.mark.parametrize("check", [f"{module}.{name}" for module, names in CHECKS.items() for name in names])
def test_inside(outcomes: dict[str, str | None], check: str) -> None:
    assert outcomes[check] is None, outcomes[check]
