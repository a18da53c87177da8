"""Imports follow the order of ARCHITECTURE.md and have no cycles."""

from __future__ import annotations

import pytest

from tests.support.imports import by_part, find_cycle, imports, modules, within

# Packages and modules of the core, the lowest level first. Each may import from its own level and from lower levels.
LEVELS = [
    "__init__ errors config files callbacks",
    "song models audio",
    "edit runtime text",
    "sampling checkpoints",
    "planner recipe load adapters lyrics",
    "pipeline",
    "train batch cli",
    "__main__",
]
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts.split()}
COMFYUI = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "execution", "folder_paths", "nodes", "server"}
PACKAGES = ["acestep_core", "nodes", "benchmarks", "training", "tools"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycle_between_files(package):
    assert not find_cycle(within(imports(package)))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycle_between_packages(package):
    assert not find_cycle(by_part(imports(package)))


def test_the_core_imports_downwards():
    part = {name: name.split(".")[1] if "." in name else "__init__" for name in modules("acestep_core")}
    assert set(part.values()) == set(LEVEL)
    upward = [
        f"{name} → {target}"
        for name, targets in within(imports("acestep_core")).items()
        for target in targets
        if LEVEL[part[target]] > LEVEL[part[name]]
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
