"""The exit status and the screenshots of `.ci/run`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
README = """## Tests

```bash
mkdir -p tests/artifacts
echo picture >tests/artifacts/canvas.png
exit {status}
```
"""


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize("named", [True, False])
def test_exit_status_and_screenshots_survive(tmp_path: Path, status: int, named: bool) -> None:
    project, tools, artifacts = tmp_path / "project", tmp_path / "tools", tmp_path / "artifacts"
    shutil.copytree(REPO / ".ci", project / ".ci")
    (project / "README.md").write_text(README.format(status=status))
    tools.mkdir()
    for name in ("apt-get", "sudo"):  # install nothing
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CI_ARTIFACTS"}
    environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
    if named:
        environment["CI_ARTIFACTS"] = str(artifacts)
    done = subprocess.run([project / ".ci" / "run"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    folder = artifacts if named else project / "tests" / "artifacts"
    assert (folder / "canvas.png").read_text() == "picture\n"
    assert done.stdout.splitlines()[-1] == f"Screenshots: {folder}"
    assert not (project / ".ci-commands").exists()
