"""Imports follow the order of ARCHITECTURE.md and have no circles."""

from __future__ import annotations

import pytest

from tests.support.imports import by_room, find_cycle, imports, modules, within

# Rooms of the core from the bottom. A room may import rooms of its own level and of the levels above its line.
LEVELS = [
    "__init__ errors config files callbacks",
    "song models audio",
    "edit runtime text",
    "sampling checkpoints",
    "planner recipe load",
    "pipeline",
    "cli",
    "__main__",
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms.split()}
COMFYUI = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "execution", "folder_paths", "nodes", "server"}
PACKAGES = ["acestep_core", "nodes", "benchmarks", "training", "tools"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_circle_between_files(package):
    assert not find_cycle(within(imports(package)))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_circle_between_rooms(package):
    assert not find_cycle(by_room(imports(package)))


def test_the_core_imports_downwards():
    room = {name: name.split(".")[1] if "." in name else "__init__" for name in modules("acestep_core")}
    assert set(room.values()) == set(LEVEL)
    upward = [
        f"{name} → {target}"
        for name, targets in within(imports("acestep_core")).items()
        for target in targets
        if LEVEL[room[target]] > LEVEL[room[name]]
    ]
    assert not upward


def test_the_core_imports_neither_nodes_nor_comfyui():
    foreign = [
        f"{name} → {target}"
        for name, targets in imports("acestep_core").items()
        for target in targets
        if target.split(".")[0] in COMFYUI
    ]
    assert not foreign
