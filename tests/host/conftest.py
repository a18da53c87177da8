"""One ComfyUI server for the whole session, with this repository installed under a folder name nobody expects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from acestep_core.codes import CODE_COUNT
from tests.support.tiny_planner import write_tiny_planner

from .server import REPO, ComfyServer

PLANNER = "acestep-5Hz-lm-tiny"
PACK_FOLDER = "my music.nodes-2"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    args = ("--cpu", "--verbose", "DEBUG", "--preview-method", "auto")
    comfy = ComfyServer(tmp_path_factory.mktemp("comfyui"), args=args)
    comfy.install(REPO, PACK_FOLDER)
    write_tiny_planner(comfy.base / "models" / "acestep" / PLANNER, CODE_COUNT)
    empty = comfy.base / "custom_nodes" / "empty_pack"
    empty.mkdir()
    (empty / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    with comfy:
        yield comfy
