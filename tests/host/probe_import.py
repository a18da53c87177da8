"""Load packs as ComfyUI does and print the effects of each as JSON. Runs in its own process.

Usage: python probe_import.py COMFYUI PACK...
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import sys
import time
import types
import warnings

HEAVY = ("transformers", "diffusers", "huggingface_hub", "soundfile", "soxr", "accelerate", "peft")
WATCHED = ("comfy", "comfy_api", "comfy_execution", "execution", "folder_paths", "nodes", "node_helpers", "torch")
WRITING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "shutil.copyfile"}
CREATING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OUTSIDE = {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.putenv"}

events: list[str] | None = None


def audit(event: str, arguments: tuple) -> None:
    if events is None:
        return
    if event == "open":
        path, mode, flags = arguments
        if (set("wax+") & set(mode or "") or (flags or 0) & CREATING) and path != os.devnull:
            events.append(f"open {path}")
    elif event in WRITING | OUTSIDE:
        events.append(f"{event} {arguments[0]}")


def globals_now() -> dict[str, object]:
    """Return everything in ComfyUI and torch that a pack could replace: module names and class members."""
    found: dict[str, object] = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] not in WATCHED or not isinstance(module, types.ModuleType):
            continue
        for key, value in list(vars(module).items()):
            if isinstance(value, types.ModuleType):
                continue  # an imported submodule
            found[f"{name}.{key}"] = value
            if inspect.isclass(value) and value.__module__ == name:
                found.update((f"{name}.{key}.{member}", what) for member, what in vars(value).items())
    return found


def process_now() -> dict[str, object]:
    import torch

    root = logging.getLogger()
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "finders": list(sys.meta_path),
        "log level": root.level,
        "log handlers": list(root.handlers),
        "warnings": list(warnings.filters),
        "torch dtype": torch.get_default_dtype(),
        "torch threads": torch.get_num_threads(),
        "torch random": torch.get_rng_state().tolist(),
        "torch grad": torch.is_grad_enabled(),
        "torch precision": torch.get_float32_matmul_precision(),
    }


def folders_now() -> dict[str, tuple]:
    import folder_paths

    return {name: (list(places), set(kinds)) for name, (places, kinds) in folder_paths.folder_names_and_paths.items()}


def load(pack: str) -> dict[str, object]:
    """Load a pack as ComfyUI does and return the changes."""
    global events
    import nodes

    # Some are in memory because of ComfyUI itself. Removed here, an import by the pack is visible.
    for name in [name for name in sys.modules if name.split(".")[0] in HEAVY]:
        del sys.modules[name]
    modules, node_ids, folders = set(sys.modules), set(nodes.NODE_CLASS_MAPPINGS), folders_now()
    before, process = globals_now(), process_now()
    events, start = [], time.perf_counter()
    worked = asyncio.run(nodes.load_custom_node(pack))
    seconds = time.perf_counter() - start
    happened, events = events, None
    if not worked:
        raise SystemExit(f"ComfyUI could not load {pack}")
    after, process_after, folders_after = globals_now(), process_now(), folders_now()
    new = sorted(set(sys.modules) - modules)
    return {
        "seconds": seconds,
        "modules": new,
        "heavy": [name for name in new if name.split(".")[0] in HEAVY],
        "events": happened,
        "replaced": sorted(key for key, value in before.items() if key not in after or after[key] is not value),
        "process": sorted(key for key, value in process.items() if process_after[key] != value),
        "folders": sorted(folders_after.keys() - folders.keys()),
        "folders_changed": sorted(key for key, value in folders.items() if folders_after[key] != value),
        "nodes": sorted(nodes.NODE_CLASS_MAPPINGS.keys() - node_ids),
    }


def main(comfyui: str, *packs: str) -> None:
    sys.path.insert(0, comfyui)
    sys.argv = ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import nodes  # noqa: F401  ComfyUI with its core nodes, as before custom nodes

    warnings.simplefilter("ignore")
    sys.addaudithook(audit)
    print(json.dumps([load(pack) for pack in packs]))


if __name__ == "__main__":
    main(*sys.argv[1:])
