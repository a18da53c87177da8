"""The cost and side effects of importing the pack, in a process that starts as ComfyUI does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.comfyui import find_comfyui

from .server import REPO

PROBE = Path(__file__).with_name("probe_import.py")


EMPTY = "NODE_CLASS_MAPPINGS = {}\n"
RUDE = """
import os
import comfy.model_base
import folder_paths
import torch
import transformers

os.environ["RUDE"] = "1"
torch.set_num_threads(torch.get_num_threads() + 1)
comfy.model_base.BaseModel.apply_model = lambda *arguments: None
folder_paths.get_filename_list = lambda name: []
folder_paths.add_model_folder_path("loras", os.getcwd())
open("rude.txt", "w").close()
NODE_CLASS_MAPPINGS = {}
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The effects of importing an empty pack, ours, and one with side effects."""
    folder = tmp_path_factory.mktemp("import")
    packs = {"empty": folder / "empty_pack", "ours": REPO, "rude": folder / "rude_pack"}
    for name, code in (("empty", EMPTY), ("rude", RUDE)):
        packs[name].mkdir()
        (packs[name] / "__init__.py").write_text(code)
    process = subprocess.run(
        [sys.executable, "-B", str(PROBE), str(find_comfyui()), *map(str, packs.values())],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    found = dict(zip(packs, json.loads(process.stdout.splitlines()[-1]), strict=True))
    print("seconds to load:", {name: round(what["seconds"], 3) for name, what in found.items()})
    return found


def test_the_probe_finds_side_effects(loaded: dict) -> None:
    rude = loaded["rude"]
    assert "transformers" in rude["heavy"]
    assert any("rude.txt" in event for event in rude["events"])
    assert {"comfy.model_base.BaseModel.apply_model", "folder_paths.get_filename_list"} <= set(rude["replaced"])
    assert {"environment", "torch threads"} <= set(rude["process"])
    assert rude["folders_changed"] == ["loras"]


def test_imports_only_our_own_modules(loaded: dict) -> None:
    """Modules are counted, because their times vary."""
    package = str(REPO).replace(".", "_x_")  # the name ComfyUI gives it
    others = [name for name in loaded["ours"]["modules"] if name != package and not name.startswith(package + ".")]
    assert len(others) < len(loaded["ours"]["modules"])
    assert not loaded["ours"]["heavy"]
    assert len(others) <= 20, f"the pack imports {dict(Counter(name.split('.')[0] for name in others))}"


def test_writes_connects_and_starts_nothing(loaded: dict) -> None:
    """Only its folder for models, and its example recording, and these only if they are missing."""
    made = ("models/acestep", "input", "input/ACE-Step example.ogg")
    others = [event for event in loaded["ours"]["events"] if not event.endswith(made)]
    assert not [event for event in others if "ACE-Step example.ogg" not in event]


def test_changes_nothing_global(loaded: dict) -> None:
    assert not loaded["ours"]["replaced"]
    assert not loaded["ours"]["process"]
    assert not loaded["ours"]["folders_changed"]


def test_adds_its_nodes_and_one_model_folder(loaded: dict) -> None:
    assert loaded["ours"]["nodes"]
    assert all(node_id.startswith("AS15_") for node_id in loaded["ours"]["nodes"])
    assert loaded["ours"]["folders"] == ["acestep"]
    assert not loaded["empty"]["folders"]
