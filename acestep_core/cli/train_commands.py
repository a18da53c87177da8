"""The commands of training: `acestep label` describes songs, `acestep train` trains an adapter on them."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .terminal import Terminal, log_lines, printable, shortened
from .train_parsers import label_parser, train_parser

if TYPE_CHECKING:
    from ..callbacks import Progress
    from ..train.checks import CheckedDataset
    from ..train.examples import Problem

Options = Mapping[str, Any]
SETTINGS = (
    "kind", "rank", "alpha", "rank_stabilized", "modules", "steps", "batch", "accumulation", "crop", "learning_rate",
    "warmup", "weight_decay", "clip", "times", "condition_dropout", "seed", "held_out", "held_out_every", "patience",
    "dropout", "ema", "optimizer",
)  # fmt: skip
LOADING = (
    "model", "vae", "text_encoder", "tokenizer", "variant", "device", "dtype", "storage", "recompute", "work",
    "restart", "save_every", "models_dir",
)  # fmt: skip


def label_folder(arguments: Sequence[str], terminal: Terminal) -> None:
    """Describe the songs of a folder with the planner, where their text files say nothing."""
    options = vars(label_parser().parse_args(arguments))
    with log_lines(terminal, options):
        _label(options, terminal)


def _label(options: Options, terminal: Terminal) -> None:
    from ..callbacks import Callbacks
    from ..train.labels import LABELS, label_songs

    fields = [name for name in options.get("fields", ",".join(LABELS)).replace(",", " ").split()]
    callbacks = Callbacks() if options.get("quiet") else Callbacks(progress=terminal.progress)
    given = _given(options, "planner", "model", "seed", "device", "dtype", "storage", "work", "models_dir")
    report = label_songs(options["folder"], fields=fields, callbacks=callbacks, **given)
    terminal.close()
    _list(report.problems, terminal)
    for path in report.written:
        print(printable(str(path)))
    if not options.get("quiet"):
        terminal.line(f"{len(report.written)} songs labelled, {report.complete} were complete; please read the files")


def train_lora(arguments: Sequence[str], terminal: Terminal) -> None:
    """Train an adapter on a folder of songs, or check the folder."""
    parser = train_parser()
    options = vars(parser.parse_args(arguments))
    if "output" not in options and not options.get("check"):
        parser.error("-o FILE.safetensors is required, or --check to check the songs only")
    with log_lines(terminal, options):
        _train(options, terminal)


def _train(options: Options, terminal: Terminal) -> None:
    from ..callbacks import Callbacks
    from ..song.song import Metadata, Song
    from ..train.checks import check_dataset
    from ..train.dataset_json import write_dataset_json
    from ..train.song_folder import read_dataset
    from ..train.train_adapter import SAMPLE_SECONDS, SampleSongs, train_adapter
    from ..train.train_settings import TrainSettings

    settings = TrainSettings(**_given(options, *SETTINGS))
    sample = options.get("sample")
    song = None if sample is None else Song(sample, metadata=Metadata(duration=SAMPLE_SECONDS))
    samples = SampleSongs(options.get("sample_every", 0), song)
    lines, cancelled = options.get("json", False), lambda: False
    if options.get("stop_with_input"):
        cancelled = _input_ended()
    callbacks = Callbacks(cancelled=cancelled)
    if lines or not options.get("quiet"):
        callbacks = Callbacks(progress=_progress_line if lines else terminal.progress, cancelled=cancelled)
    dataset = read_dataset(options["dataset"], trigger=options.get("trigger"), place=options.get("trigger_position"))
    checked = check_dataset(dataset, callbacks)
    terminal.close()
    _report(checked, terminal, options)
    if "write_dataset" in options:
        durations = {each.path: each.seconds for each in checked.audio}
        print(printable(str(write_dataset_json(checked.dataset, options["write_dataset"], durations))))
    if options.get("check"):
        checked.require_songs()
        return
    result = train_adapter(
        checked, options["output"], settings=settings, samples=samples, callbacks=callbacks,
        **_given(options, *LOADING),
    )  # fmt: skip
    for path in (result.path, result.best, result.folder, result.card):
        if path is not None and lines:
            _json_line(written=str(path))
        elif path is not None:
            print(printable(str(path)))


def _progress_line(report: Progress) -> None:
    _json_line(stage=report.stage, step=report.step, total=report.total)


def _json_line(**values: object) -> None:
    print(json.dumps(values), flush=True)


def _input_ended() -> Callable[[], bool]:
    """Return a function that is True once standard input has ended, as after the end of the program that writes it."""
    ended = threading.Event()

    def wait() -> None:
        try:
            while os.read(sys.stdin.fileno(), 1):  # not through a buffer, whose lock would outlast the command
                pass
        finally:
            ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended.is_set


def _report(checked: CheckedDataset, terminal: Terminal, options: Options) -> None:
    """Print each problem, and what is left to train on."""
    if options.get("json"):
        for problem in checked.problems:
            _json_line(problem=str(problem), left_out=problem.left_out)
        return
    _list(checked.problems, terminal)
    if not options.get("quiet"):
        left_out = sum(problem.left_out for problem in checked.problems)
        others = f", {left_out} left out" if left_out else ""
        terminal.line(f"{len(checked.audio)} songs of {checked.seconds / 60:.1f} minutes to train on{others}")


def _list(problems: Sequence[Problem], terminal: Terminal) -> None:
    for problem in problems:
        terminal.line(shortened(str(problem)))


def _given(options: Options, *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}
