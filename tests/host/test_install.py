"""Installation by ComfyUI-Manager (a clone) and from the registry's archive.

The repository is a local clone, and every connection goes to a closed port.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.comfyui import find_comfyui

from .graph import load_workflow, to_prompt, with_inputs
from .server import REPO, ComfyServer

CLOSED = "http://127.0.0.1:9"
OFFLINE = {"HTTP_PROXY": CLOSED, "HTTPS_PROXY": CLOSED, "NO_PROXY": "127.0.0.1,localhost", "PIP_NO_INDEX": "1"}
GIT_USER = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
OWN_FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user", ".git", "__pycache__")


def call(command: list[str | Path], folder: Path, **environment: str) -> str:
    """Run a command without network and return its output, which is also the message of a failure."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, **OFFLINE, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with the files of the working tree, committed or not."""
    copy = tmp_path_factory.mktemp("source") / "acestep-nodes"
    for name in call(["git", "ls-files", "-co", "--exclude-standard", "-z"], REPO).split("\0"):
        if name and (REPO / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, copy / name)
    call(["git", "init", "-q"], copy)
    call(["git", "add", "-A"], copy)
    call(["git", *GIT_USER, "commit", "-q", "-m", "working tree"], copy)
    return copy


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """A clean copy of ComfyUI: no custom nodes, no models, no user."""
    folder = tmp_path / "ComfyUI"
    original = find_comfyui()
    keep_out = shutil.ignore_patterns(*OWN_FOLDERS)
    shutil.copytree(
        original, folder, ignore=lambda where, names: keep_out(where, names) if where == str(original) else ()
    )
    (folder / "custom_nodes").mkdir()
    return folder


@pytest.fixture
def serve(comfyui: Path) -> Iterator[ComfyServer]:
    server = ComfyServer(comfyui, args=("--cpu",), comfyui=comfyui)
    yield server
    server.stop()


def assert_installed(server: ComfyServer, folder: str) -> None:
    """The pack in custom_nodes/<folder> has its nodes, translations and workflows, and generates a song."""
    info = server.object_info()
    ours = {name: node for name, node in info.items() if name.startswith("AS15_")}
    assert ours
    assert {node["python_module"] for node in ours.values()} == {f"custom_nodes.{folder}"}
    failed = [line for line in server.log.splitlines() if "IMPORT FAILED" in line]
    assert not [line for line in failed if line.endswith(folder)]  # some of ComfyUI's own may fail

    assert "01 Text to music" in server.get("/workflow_templates")[folder]
    assert server.get("/i18n")["zh"]["nodeDefs"].keys() == ours.keys()

    workflow = load_workflow(server.base / "custom_nodes" / folder / "workflows" / "01 Text to music.json")
    run = server.play(with_inputs(to_prompt(workflow, info), "AS15_Song", duration=2.0))
    assert server.fetch(run.files()[0])[:4] == b"fLaC"


def test_comfyui_manager_installs_a_clone(source: Path, comfyui: Path, serve: ComfyServer) -> None:
    # Manager recognises a git URL by its host. It installs requirements.txt as well.
    output = call(
        [sys.executable, "-m", "cm_cli", "install", f"file://localhost{source.as_posix()}"]
        + ["--mode", "local", "--exit-on-fail"],
        comfyui,
        COMFYUI_PATH=str(comfyui),
    )
    assert "[INSTALLED]" in output
    assert (comfyui / "custom_nodes" / source.name / ".git").is_dir()
    with serve:
        assert_installed(serve, source.name)
        page = (source / "web" / "docs" / "AS15_Sample.md").read_bytes()
        assert serve.request(f"/extensions/{source.name}/docs/AS15_Sample.md") == page


def test_the_registry_archive_works_in_any_folder(source: Path, comfyui: Path, serve: ComfyServer) -> None:
    comfy = [sys.executable, "-m", "comfy_cli", "--skip-prompt", "--no-enable-telemetry", "node"]
    home = {"HOME": str(comfyui.parent), "XDG_CONFIG_HOME": str(comfyui.parent / "config")}
    assert "passed" in call([*comfy, "validate"], source, **home)
    call([*comfy, "pack"], source, **home)
    with zipfile.ZipFile(source / "node.zip") as archive:
        archive.extractall(comfyui / "custom_nodes" / "songs (of mine)")
    (source / "node.zip").unlink()
    with serve:
        assert_installed(serve, "songs (of mine)")  # without help pages: ComfyUI serves none from a folder with a space
