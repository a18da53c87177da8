"""One ComfyUI server for the session, with this repository installed under an unusual folder name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .server import REPO, ComfyServer

PACK_FOLDER = "my music.nodes-2"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    args = ("--cpu", "--verbose", "DEBUG", "--preview-method", "auto")
    comfy = ComfyServer(tmp_path_factory.mktemp("comfyui"), args=args)
    comfy.install(REPO, PACK_FOLDER)
    empty = comfy.base / "custom_nodes" / "empty_pack"
    empty.mkdir()
    (empty / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    with comfy:
        yield comfy
