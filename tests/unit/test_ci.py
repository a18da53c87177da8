"""What continuous integration leaves behind: the exit status of the tests, and their screenshots."""

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
def test_screenshots_are_kept_whether_tests_pass_or_fail(tmp_path: Path, status: int, named: bool) -> None:
    project, tools, kept = tmp_path / "project", tmp_path / "tools", tmp_path / "kept"
    shutil.copytree(REPO / ".ci", project / ".ci")
    (project / "README.md").write_text(README.format(status=status))
    tools.mkdir()
    for name in ("apt-get", "sudo"):  # nothing is installed
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CI_ARTIFACTS"}
    environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
    if named:
        environment["CI_ARTIFACTS"] = str(kept)
    done = subprocess.run([project / ".ci" / "run"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    place = kept if named else project / "tests" / "artifacts"
    assert (place / "canvas.png").read_text() == "picture\n"
    assert done.stdout.splitlines()[-1] == f"Screenshots: {place}"
    assert not (project / ".ci-commands").exists()
