"""The Python examples of the README run, and the promises of docs/reliability.md name tests that exist."""

import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
README = REPO / "README.md"
SHORTER = {"duration=20": "duration=9", "batch=2": "batch=1"}


def test_the_python_of_the_readme_runs(tmp_path):
    script = "".join(re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL))
    for shown, shorter in SHORTER.items():
        assert shown in script
        script = script.replace(shown, shorter)
    script += "print(*result.waveform.shape, *other.waveform.shape)\n"
    (tmp_path / "shown.py").write_text(script, encoding="utf-8")
    ran = subprocess.run([sys.executable, "shown.py"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(size) for size in (1, 2, 9 * 48_000) * 2]


def test_every_promise_names_tests_that_exist():
    page = (REPO / "docs" / "reliability.md").read_text("utf-8")
    rows = re.findall(r"^\| (?!promise|across|---)(.*) \|$", page, re.MULTILINE)
    for row in rows:
        named = re.findall(r"`([^`]+)`", row.rsplit("|", 1)[1])
        assert named, row
        for file, _, test in (name.partition("::") for name in named):
            path = REPO / "tests" / file
            assert path.exists() and (not test or f"def {test}(" in path.read_text("utf-8")), f"{file}::{test}"
