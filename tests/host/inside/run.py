"""Import ComfyUI and the pack, run every `check_…` of some modules, and print the results as JSON.

Usage: python run.py COMFYUI REPO MODULE...

ComfyUI has top-level modules called `nodes`, `utils` and `tests`, so pytest's own process cannot import it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType

PACK = "pack_under_test"


def load_package(name: str, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def outcome(check, world) -> str | None:
    """Return the traceback of a failed check, or None."""
    try:
        with world.clean():
            check(world)
    except BaseException:
        return traceback.format_exc()
    return None


def main(comfyui: str, repo: str, *modules: str) -> None:
    sys.path[0] = comfyui
    sys.argv = ["main.py", "--cpu", "--preview-method", "auto"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch

    torch.set_num_threads(1)
    import folder_paths

    folder_paths.set_output_directory(str(Path.cwd() / "output"))  # new in every run, unlike ComfyUI's own
    load_package(PACK, Path(repo))
    load_package("inside", Path(__file__).parent)
    world = importlib.import_module("inside.world").World()
    results = {}
    for name in modules:
        module = importlib.import_module(f"inside.{name}")
        for key, check in list(vars(module).items()):
            if key.startswith("check_") and check.__module__ == module.__name__:
                started = time.process_time()
                results[f"{name}.{key}"] = failure = outcome(check, world)
                print(f"{key} ({time.process_time() - started:.1f} s):", failure or "passed", file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
