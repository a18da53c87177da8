"""Linter, formatter and type checker."""

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
COMMANDS = {
    "ruff check": ["-m", "ruff", "check", str(REPO)],
    "ruff format": ["-m", "ruff", "format", "--check", str(REPO)],
    "mypy": [str(REPO / "tools" / "check_types.py")],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS.keys())
def test_the_code_passes(arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
