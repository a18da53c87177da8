"""The exit status and the screenshots of `.ci/run`, and what the versions of Python are tested with."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
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


def test_versions_are_tested_with_what_the_tests_import() -> None:
    """Each version of Python gets the package and requirements-core.txt, not all that the test command installs."""
    project = (REPO / "pyproject.toml").read_text("utf-8")
    dependencies = re.findall(
        r'"([\w-]+)', re.findall(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)[0]
    )
    needed = re.findall(r"^[\w-]+", (REPO / "tests" / "requirements-core.txt").read_text("utf-8"), re.MULTILINE)
    installed = {name.lower() for name in needed + dependencies}
    ignored = re.findall(r"--ignore=(\S+?\.py)", (REPO / ".github" / "workflows" / "tests.yml").read_text("utf-8"))
    distributions = packages_distributions()
    for folder in ("unit", "fuzz", "support"):
        for path in (REPO / "tests" / folder).rglob("*.py"):
            if path.relative_to(REPO).as_posix() in ignored:
                continue
            for name in _imports(path) - sys.stdlib_module_names:
                if not (REPO / name).is_dir():
                    assert installed & {each.lower() for each in distributions.get(name, [name])}, f"{path}: {name}"


def _imports(path: Path) -> set[str]:
    """Return the packages that a module imports when it is imported."""
    names: set[str] = set()
    for line in ast.parse(path.read_text("utf-8")).body:
        if isinstance(line, ast.Import):
            names |= {alias.name.split(".")[0] for alias in line.names}
        elif isinstance(line, ast.ImportFrom) and not line.level and line.module:
            names.add(line.module.split(".")[0])
    return names
