"""The command that makes many songs: `acestep batch songs.jsonl -o out`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..batch.jobs import BatchJob, Outcome
from ..batch.local_pool import LocalPool
from ..batch.outputs import BatchOutput
from ..batch.run_batch import BatchProgress, BatchStoppedError, run_batch
from ..batch.song_list import read_song_list
from .batch_rows import RowReader, check_suffix
from .inputs import check_counts
from .parsers import batch_parser
from .terminal import Terminal, log_lines, printable, shortened

if TYPE_CHECKING:
    from ..audio.measured import MusicFilter

Options = Mapping[str, Any]
OWN = ("list", "output", "format", "together", "keep", "plan", "planner", "quiet", "verbose")
MOST = 16  # songs of a chunk on a GPU, if the memory decides
INTERVALS = {True: 2.0, False: 20.0}  # seconds between two lines of progress, on a terminal and elsewhere


def make_batch(arguments: Sequence[str], terminal: Terminal) -> None:
    """Make the songs of a list, and a manifest of them."""
    options = vars(batch_parser().parse_args(arguments))
    with log_lines(terminal, {"quiet": not options.get("verbose"), **options}):
        _make(options, terminal)


def _make(options: Options, terminal: Terminal) -> None:
    check_counts(options, "together", "batch", "best_of")
    suffix = "." + options.get("format", "flac").lower().lstrip(".")
    check_suffix(suffix)
    filter_of(options)
    songs = read_song_list(options["list"])
    plan = {name: options[name] for name in ("planner",) if name in options}
    defaults = {name: value for name, value in options.items() if name not in OWN}
    width = max(4, len(str(len(songs))))
    reader = RowReader(
        defaults, plan if options.get("plan") or plan else None, suffix, width, " ".join(options.get("keep", []))
    )
    jobs, refused = reader.read(songs)
    report = _Report(terminal, options.get("quiet", False))
    output = BatchOutput(Path(options["output"]))
    try:
        report.end(_run_here(jobs, refused, output, report, options))
    except KeyboardInterrupt:
        terminal.line("what is written stays; the same command goes on where it stopped")
        raise


def _run_here(
    jobs: Sequence[BatchJob], refused: Sequence[Outcome], output: BatchOutput, report: _Report, options: Options
) -> BatchProgress:
    """Make the songs in this process."""
    from ..runtime.devices import pick_device
    from .batch_maker import BatchSongMaker

    device = pick_device(options.get("device", "auto")).type
    stop = threading.Event()
    maker = BatchSongMaker(output.store, options.get("together"), filter_of(options), stop.is_set)
    together = options.get("together") or (MOST if device in ("cuda", "xpu") else 1)
    pool = LocalPool(maker, threads_of(device), stop.set)
    return run_batch(jobs, refused, pool, output, report, together=together)


def filter_of(options: Options) -> MusicFilter | None:
    """Return the filter of --keep. Raises RequestError."""
    from ..audio.measured import MusicFilter

    return MusicFilter.parse(options["keep"]) if "keep" in options else None


def threads_of(device: str) -> int:
    """Return 3 for a GPU: one thread plans, one samples, one writes. On a CPU they would take each other's cores."""
    return 1 if device == "cpu" else 3


class _Report:
    """Prints the names of files, the errors of rows, and from time to time how far the batch is."""

    def __init__(self, terminal: Terminal, quiet: bool):
        self._terminal, self._quiet = terminal, quiet
        self._last = -1e9

    def __call__(self, progress: BatchProgress, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            for song in outcome.songs:
                if "file" in song.entry:
                    print(printable(song.file), flush=True)
                else:
                    self._terminal.line(printable(f"{song.file} is dropped: {'; '.join(song.entry['because'])}"))
            if outcome.error and not outcome.fatal:
                self._terminal.line(shortened(outcome.error))
        now = time.monotonic()
        if not self._quiet and now - self._last > INTERVALS[self._terminal.live]:
            self._last = now
            self._terminal.line(str(progress))

    def end(self, progress: BatchProgress) -> None:
        """Print the result. Raises BatchStoppedError if a row failed, so that scripts notice."""
        if not self._quiet:
            self._terminal.line(str(progress))
        if failed := progress.failed + progress.refused:
            raise BatchStoppedError(f"{failed} songs failed; the manifest says why. Start again to make them")
