"""The result of `pip install .`: the package with its embedded model, the command and the licence."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from acestep_core import __version__

REPO = Path(__file__).resolve().parents[2]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Copy the sources and build them in place; the folder `built` holds the content of site-packages."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(REPO / "acestep_core", folder / "acestep_core", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPO / name, folder)
    # `pip wheel` would download the build tools.
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()"]
    done = subprocess.run(
        [*command, "-q", "egg_info", "build", "--build-lib", "built"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_exactly_the_files_of_the_package_are_installed(source):
    expected = {f"acestep_core/{name}" for name in files(source / "acestep_core")}
    assert "acestep_core/nano/acestep-v15-nano/silence_latent.pt" in expected
    assert files(source / "built") == expected


def test_the_command_and_the_licence_are_installed(source):
    (info,) = source.glob("*.egg-info")
    assert "acestep = acestep_core.cli:main" in (info / "entry_points.txt").read_text()
    assert "LICENSE" in (info / "SOURCES.txt").read_text().splitlines()


def test_the_version_has_one_place():
    """pyproject.toml, which the Comfy registry reads without running it."""
    version = re.search(r'^version = "(.+)"$', (REPO / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[1]
    assert version == __version__
    others = [path for path in (REPO / "acestep_core").rglob("*.py") if f'"{version}"' in path.read_text("utf-8")]
    assert not others


def test_an_installed_package_knows_its_version(source):
    code = "import acestep_core; print(acestep_core.__file__, acestep_core.__version__)"
    (source / "built" / "acestep_nodes-9.8.7.dist-info").mkdir()
    (source / "built" / "acestep_nodes-9.8.7.dist-info" / "METADATA").write_text(
        "Name: acestep-nodes\nVersion: 9.8.7\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source / "built", capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(source / "built" / "acestep_core" / "__init__.py"), "9.8.7"]
