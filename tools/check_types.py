"""Run mypy over `acestep_core` and `nodes`.

The nodes import the core relatively, so mypy must see the checkout as one package. If the folder's name is not a valid
package name, mypy refuses the folder. A link with a valid name avoids this.

Usage: python tools/check_types.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PACKAGE = "acestep_pack"


def main() -> int:
    """Return mypy's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, PACKAGE).symlink_to(REPO, target_is_directory=True)
        command = [sys.executable, "-m", "mypy", "--config-file", str(REPO / "pyproject.toml")]
        command += ["--cache-dir", os.fspath(REPO / ".mypy_cache")]
        packages = [argument for name in ("acestep_core", "nodes") for argument in ("-p", f"{PACKAGE}.{name}")]
        return subprocess.run([*command, *packages], cwd=folder).returncode


if __name__ == "__main__":
    raise SystemExit(main())
