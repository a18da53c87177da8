"""The `acestep` command: songs without a graph. Nothing heavy is imported before it is needed.

`acestep "warm lo-fi piano" -o song.flac` · `acestep models` · `acestep download turbo`
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AceStepError, RequestError
from .inputs import check_counts, read_recipes
from .options import song_parser
from .planner_commands import listen_to_song, plan_song, write_song
from .terminal import Terminal

if TYPE_CHECKING:
    from ..callbacks import Callbacks
    from ..pipeline import Model, Result
    from ..recipe import Recipe

OUT_OF_MEMORY = re.compile("out of memory|not enough memory|allocate memory")  # CUDA's words, and those of the CPU


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1 (failed), 2 (cannot be asked for), 130 (stopped)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = COMMANDS.get(arguments[0] if arguments else "", make_songs)
    terminal = Terminal(sys.stderr)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # consoles without every letter
    try:
        command(arguments if command is make_songs else arguments[1:], terminal)
        return 0
    except KeyboardInterrupt:
        terminal.line("acestep: stopped")
        return 130
    except BrokenPipeError:  # the reader went away, as in `acestep models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except AceStepError as error:
        terminal.line(f"acestep: {error}")
        return 2 if isinstance(error, RequestError) else 1
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error))):
            raise
        other, offload = (
            (", a shorter --duration", "--offload or --stream") if command is make_songs else ("", "--offload")
        )
        terminal.line(
            f"acestep: out of memory; try --storage int8{other}, smaller --batch or --dtype bfloat16, on a GPU also "
            f"{offload} ({str(error).splitlines()[0] if str(error) else 'no memory left'})"
        )
        return 1
    finally:
        terminal.close()


# --- acestep "caption" ----------------------------------------------------------------------------------------------


def make_songs(arguments: Sequence[str], terminal: Terminal) -> None:
    """Makes songs and writes them."""
    parser = song_parser()
    given = vars(parser.parse_args(arguments))
    if "caption" not in given and "from" not in given:
        parser.error('say how the song shall sound, such as: acestep "warm lo-fi piano"')
    with log_lines(terminal, given):
        _make_songs(given, terminal)


def _make_songs(given: dict[str, Any], terminal: Terminal) -> None:
    from ..audio import check_audio_path
    from ..callbacks import Callbacks
    from ..pipeline import generate

    recipes, batch = read_recipes(given), given.get("batch", 1)
    check_counts(given, "batch")
    paths = [check_audio_path(path) for path in output_paths(given.get("output"), batch * len(recipes))]
    callbacks = Callbacks() if given.get("quiet") else Callbacks(progress=terminal.progress)
    model = _load(recipes[0], given, callbacks)
    if model.note and not given.get("quiet"):
        terminal.line(model.note)
    failures = []
    for recipe in recipes:
        result = generate(
            model,
            recipe.song,
            batch=batch,
            seed=recipe.seed,
            settings=recipe.settings,
            normalize=recipe.normalize,
            edit=recipe.edit,
            callbacks=callbacks,
        )
        for item in range(batch):
            try:
                path = _write(paths.pop(0), result, item, terminal)
            except RequestError as error:  # no reason to lose the others
                failures.append(error)
                continue
            seconds = result.waveform.shape[-1] / result.sample_rate
            print(path if given.get("quiet") else f"{path}: {seconds:g} s, seed {result.seeds[item]}")
    if failures:
        raise failures[0]


def _write(path: Path, result: Result, item: int, terminal: Terminal) -> Path:
    """Writes one song; where its name cannot be had (a player has the old file open, say), under the next free one."""
    from ..audio import write_audio

    song = (result.waveform[item], result.sample_rate, result.recipe(item).to_dict())
    try:
        write_audio(path, *song)
        return path
    except RequestError as error:
        spares = (path.with_name(f"{path.stem} ({number}){path.suffix}") for number in count(2))
        spare = next(spare for spare in spares if not spare.exists())
        write_audio(spare, *song)
        terminal.line(f"{error}; the song is in {spare}")
        return spare


def _load(recipe: Recipe, given: dict[str, Any], callbacks: Callbacks) -> Model:
    from ..pipeline import load_model
    from ..recipe import DTYPES
    from ..runtime.devices import Precision, pick_device
    from ..runtime.options import pick_storage

    device = pick_device(given.get("device", "auto"))
    chosen = {name: recipe.origin[name] for name in DTYPES if name in recipe.origin}
    precision = Precision.pick(
        device,
        dit=chosen.get("dtype", "auto"),
        text_encoder=chosen.get("text_encoder_dtype"),
        vae=chosen.get("vae_dtype"),
    )
    pick_storage(device, recipe.origin.get("storage"))
    model = load_model(
        recipe.origin.get("model", "nano"),
        device=device,
        dtype=precision,
        vae=recipe.origin.get("vae"),
        text_encoder=recipe.origin.get("text_encoder"),
        variant=recipe.origin.get("variant"),
        storage=recipe.origin.get("storage"),
        offload=given.get("offload", False),
        stream=given.get("stream", False),
        graphs=given.get("graphs", False),
        compile=given.get("compile", False),
        models_dir=given.get("models_dir"),
        callbacks=callbacks,
    )
    model.origin = {**model.origin, **chosen}
    return model


def output_paths(output: str | None, count: int) -> list[Path]:
    """Where to write: exactly where asked (song-1, song-2, … for a batch), or else under the next free numbers here."""
    if output is not None:
        path = Path(output)
        if count == 1 or not path.name:  # a folder such as "." is refused as it is
            return [path]
        return [path.with_name(f"{path.stem}-{i + 1}{path.suffix}") for i in range(count)]
    taken = [re.fullmatch(r"song-(\d+)", path.stem) for path in Path().glob("song-*.*")]
    first = 1 + max((int(match[1]) for match in taken if match), default=0)
    return [Path(f"song-{first + i}.flac") for i in range(count)]


@contextmanager
def log_lines(terminal: Terminal, given: dict[str, Any]) -> Iterator[None]:
    """Shows the package's log on the terminal while a command runs, and leaves logging as it was."""
    log, handler = logging.getLogger("acestep"), terminal.log_handler()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.ERROR if given.get("quiet") else logging.INFO if given.get("verbose") else logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


# --- acestep models, acestep download -------------------------------------------------------------------------------


def list_models(arguments: Sequence[str], terminal: Terminal) -> None:
    """Prints the catalog: what each model is, whether it is here, and where it was looked for."""
    parser = argparse.ArgumentParser(prog="acestep models", description="List the models and where they are.")
    parser.add_argument("--models-dir", metavar="DIR", help="where to look for models")
    options = parser.parse_args(arguments)

    from ..checkpoints.catalog import default_roots, presence

    roots = default_roots(options.models_dir)
    for row in presence(roots):
        item = row.release
        amount = f"{item.size / 1e9:.1f} GB" if item.size >= 1e8 else f"{item.size / 1e6:.0f} MB"
        size = f"{'~' if item.approximate else ''}{amount}" if item.size else ""
        print(f"{'✓' if row.found else ' '} {item.name:<20} {item.kind.value:<16} {size:>8}  {item.about}")
        if item.variant:
            variant = item.variant
            print(f"{'':46}steps {variant.steps}, shift {variant.shift:g}, guidance {variant.guidance:g}")
        print(f"{'':46}{row.found or f'from {item.source}'}")
    print(f"\n✓ is here. Looked in {', '.join(str(root.absolute()) for root in roots)}")
    print("`acestep download NAME` fetches a model, with the parts it needs, into the first of them.")


def download_model(arguments: Sequence[str], terminal: Terminal) -> None:
    """Fetches a model of the catalog."""
    parser = argparse.ArgumentParser(prog="acestep download", description="Fetch a model and the parts it needs.")
    parser.add_argument("name", help="as acestep models lists it")
    parser.add_argument("--models-dir", metavar="DIR", help="where to put it")
    options = parser.parse_args(arguments)

    from ..callbacks import Callbacks
    from ..checkpoints.catalog import default_roots
    from ..checkpoints.download import download

    plan = download(
        options.name,
        default_roots(options.models_dir)[0],
        callbacks=Callbacks(progress=terminal.progress),
        announce=lambda plan: terminal.line(str(plan)),
    )
    print(f"{options.name} is in {plan.root.absolute()}")


COMMANDS = {
    "plan": plan_song,
    "write": write_song,
    "listen": listen_to_song,
    "models": list_models,
    "download": download_model,
}
