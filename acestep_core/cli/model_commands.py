"""The commands of the model catalog: `acestep models` and `acestep download`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .terminal import Terminal, printable

INDENT = " " * 46


def list_models(arguments: Sequence[str], terminal: Terminal) -> None:
    """Print the catalog with the path or the source of each model."""
    parser = argparse.ArgumentParser(prog="acestep models", description="List the models and where they are stored.")
    parser.add_argument("--models-dir", metavar="DIR", help="folder of models")
    options = parser.parse_args(arguments)

    from ..checkpoints.installed import default_roots, list_gguf_files, list_releases

    roots = default_roots(options.models_dir)
    for row in list_releases(roots):
        item = row.release
        amount = f"{item.size / 1e9:.1f} GB" if item.size >= 1e8 else f"{item.size / 1e6:.0f} MB"
        size = f"{'~' if item.approximate else ''}{amount}" if item.size else ""
        print(f"{'✓' if row.found else ' '} {item.name:<20} {item.kind.value:<16} {size:>8}  {item.about}")
        if item.variant:
            variant = item.variant
            print(f"{INDENT}steps {variant.steps}, shift {variant.shift:g}, guidance {variant.guidance:g}")
        print(printable(f"{INDENT}{row.found or f'from {item.source}'}"))
    for file, kind in list_gguf_files(roots):
        print(printable(f"✓ {file.name:<37}{kind.value:<16} {file.stat().st_size / 1e9:>5.1f} GB  GGUF"))
        print(printable(f"{INDENT}{file}"))
    print(printable(f"\n✓ is on this machine. Searched {', '.join(str(root.absolute()) for root in roots)}"))
    print("`acestep download NAME` fetches a model and the parts it needs into the first of these folders.")


def download_model(arguments: Sequence[str], terminal: Terminal) -> None:
    """Download a model of the catalog."""
    parser = argparse.ArgumentParser(prog="acestep download", description="Download a model and the parts it needs.")
    parser.add_argument("name", help="a name from acestep models")
    parser.add_argument("--models-dir", metavar="DIR", help="target folder")
    options = parser.parse_args(arguments)

    from ..callbacks import Callbacks
    from ..checkpoints.download import download
    from ..checkpoints.installed import default_roots

    plan = download(
        options.name,
        default_roots(options.models_dir)[0],
        callbacks=Callbacks(progress=terminal.progress),
        announce=lambda plan: terminal.line(str(plan)),
    )
    print(f"{options.name} is in {plan.root.absolute()}")
