"""The commands of adapters: `acestep loras` and `acestep lora-convert`, and the option `--lora`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, RequestError
from .terminal import Terminal, printable, shortened

if TYPE_CHECKING:
    from pathlib import Path

    from ..adapters.merge import AdapterUse
    from ..recipe import Recipe

Options = Mapping[str, Any]
INDENT = " " * 4


def list_loras(arguments: Sequence[str], terminal: Terminal) -> None:
    """Print the adapters in the folders of LoRAs."""
    parser = argparse.ArgumentParser(
        prog="acestep loras", description="List the LoRAs and other adapters for ACE-Step 1.5."
    )
    parser.add_argument("--models-dir", metavar="DIR", help="folder of models")
    options = parser.parse_args(arguments)

    from ..adapters.adapter import WIDTHS
    from ..adapters.adapter_file import ForeignAdapterError, open_adapter
    from ..adapters.adapter_folders import list_adapter_paths, lora_folders
    from ..checkpoints.installed import default_roots

    folders, foreign = lora_folders(default_roots(options.models_dir)), 0
    for path in list_adapter_paths(folders):
        name = _name_below(path, folders)
        try:
            adapter = open_adapter(path)
        except ForeignAdapterError:
            foreign += 1
            continue
        except CheckpointError as error:
            print(printable(shortened(f"{name}\n{INDENT}cannot be used: {error}")))
            continue
        report, width = adapter.summary(), adapter.width
        size = "any size" if width is None else WIDTHS.get(width, f"width {width}")
        words = f"\n{INDENT}trigger words: {', '.join(report.trigger)}" if report.trigger else ""
        print(printable(shortened(f"{name}\n{INDENT}for {size}: {report.settings()}{words}")))
    searched = ", ".join(str(folder.absolute()) for folder in folders)
    others = f" {foreign} other files are no adapters of ACE-Step 1.5." if foreign else ""
    print(printable(f"\nSearched {searched}.{others}\n`acestep --lora NAME` uses one; NAME:0.5 at half strength."))


def convert_lora(arguments: Sequence[str], terminal: Terminal) -> None:
    """Write an adapter as a file of ComfyUI or a folder of PEFT."""
    parser = argparse.ArgumentParser(
        prog="acestep lora-convert", description="Write a LoRA for other programs, so that strength 1 is as trained."
    )
    parser.add_argument("input", metavar="IN", help="name, file or folder, see acestep loras")
    parser.add_argument("output", metavar="OUT", help="a .safetensors file for ComfyUI, or a new folder for PEFT")
    parser.add_argument("--models-dir", metavar="DIR", help="folder of models")
    options = parser.parse_args(arguments)

    from ..adapters.adapter_file import read_adapter
    from ..adapters.adapter_folders import find_adapter, lora_folders
    from ..adapters.convert import convert_adapter
    from ..checkpoints.installed import default_roots

    adapter = read_adapter(find_adapter(options.input, lora_folders(default_roots(options.models_dir))))
    report = adapter.summary()
    path = convert_adapter(adapter, options.output)
    if report.unmatched:
        terminal.line(
            shortened(f"not converted: {len(report.unmatched)} keys of no module: {report.unmatched_names()}")
        )
    if any("DoRA" in kind for kind in report.kinds) and path.is_file():
        terminal.line("the LoRA loaders of ComfyUI itself apply DoRA only approximately")
    print(printable(f"{path}: {report.settings()}"))


def split_strength(text: str) -> tuple[str, float]:
    """Split NAME:STRENGTH. Without a strength, or if a file has this very name, it is 1."""
    name, colon, strength = text.rpartition(":")
    if not colon or not name or os.path.exists(text):
        return text, 1.0
    try:
        return name, float(strength)
    except ValueError:  # such as the path C:\\lora.safetensors
        return text, 1.0


def adapter_uses(recipe: Recipe, options: Options, roots: Sequence[Path]) -> list[AdapterUse]:
    """Return the adapters of --lora, else those of the song that --from names. Raises RequestError, CheckpointError."""
    given = options.get("lora")
    if given is None and not recipe.adapters:
        return []
    from ..adapters.adapter_file import read_adapter
    from ..adapters.adapter_folders import find_adapter, find_recorded, lora_folders
    from ..adapters.merge import AdapterUse

    folders = lora_folders(roots)
    if given is None:
        return [
            AdapterUse(read_adapter(find_recorded(each, folders)), each.strength, each.groups)
            for each in recipe.adapters
        ]
    uses = []
    for text in given:
        name, strength = split_strength(text)
        if not name.strip():
            raise RequestError(f"--lora {text!r:.80} has no name; `acestep loras` lists the names")
        uses.append(AdapterUse(read_adapter(find_adapter(name, folders)), strength))
    return uses


def _name_below(path: Path, folders: Sequence[Path]) -> str:
    """Return the name for --lora, a path below the folder."""
    folder = next(folder for folder in folders if folder in path.parents)
    return path.relative_to(folder).as_posix().removesuffix(".safetensors")
