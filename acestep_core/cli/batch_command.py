"""The command that makes many songs: `acestep batch songs.jsonl -o out`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..batch.jobs import BatchJob, Outcome
from ..batch.local_pool import LocalPool
from ..batch.outputs import BatchOutput
from ..batch.remote_output import RemoteFiles, RemoteOutput, ReturnedFiles
from ..batch.run_batch import BatchProgress, BatchStoppedError, run_batch
from ..batch.song_list import read_song_list
from ..errors import RequestError
from .batch_rows import RowReader, check_suffix
from .inputs import check_counts
from .parsers import batch_parser
from .terminal import Terminal, log_lines, printable, shortened

if TYPE_CHECKING:
    from ..audio.measured import MusicFilter

Options = Mapping[str, Any]
RAY = ("ray", "workers", "worker_gpus", "worker_cpus")
OWN = (*RAY, "list", "output", "format", "together", "keep", "plan", "planner", "quiet", "verbose")
MOST = 16  # songs of a chunk on a GPU, if the memory decides
INTERVALS = {True: 2.0, False: 20.0}  # seconds between two lines of progress, on a terminal and elsewhere


def make_batch(arguments: Sequence[str], terminal: Terminal) -> None:
    """Make the songs of a list, and a manifest of them."""
    options = vars(batch_parser().parse_args(arguments))
    with log_lines(terminal, {"quiet": not options.get("verbose"), **options}):
        _make(options, terminal)


def _make(options: Options, terminal: Terminal) -> None:
    check_counts(options, "together", "batch", "best_of", "workers")
    for name in RAY[1:]:
        if name in options and "ray" not in options:
            raise RequestError(f"--{name.replace('_', '-')} needs --ray")
        if options.get(name, 1) <= 0 and name != "worker_gpus" or options.get(name, 1) < 0:
            raise RequestError(f"--{name.replace('_', '-')} must be above 0, got {options[name]:g}")
    suffix = "." + options.get("format", "flac").lower().lstrip(".")
    check_suffix(suffix)
    filter_of(options)
    if options.get("lrc") == "-":
        raise RequestError("--lrc: the songs of a list cannot share standard input; give the name of a file")
    songs = read_song_list(options["list"])
    plan = {name: options[name] for name in ("planner",) if name in options}
    defaults = {name: value for name, value in options.items() if name not in OWN}
    width = max(4, len(str(len(songs))))
    remote = is_url(options["output"])
    reader = RowReader(
        defaults,
        plan if options.get("plan") or plan else None,
        suffix,
        width,
        " ".join(options.get("keep", [])),
        None if remote else Path(options["output"]),
    )
    jobs, refused = reader.read(songs)
    report = _Report(terminal, options.get("quiet", False))
    output = RemoteOutput(options["output"]) if remote else BatchOutput(Path(options["output"]))
    run = _run_on_ray if "ray" in options else _run_here
    try:
        report.end(run(jobs, refused, output, report, options))
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


def _run_on_ray(
    jobs: Sequence[BatchJob], refused: Sequence[Outcome], output: BatchOutput, report: _Report, options: Options
) -> BatchProgress:
    """Make the songs on a Ray cluster. Workers write to a URL; files of a folder are written by this process."""
    from ..batch.ray_pool import RayPool, RayWorkers, ray_cluster
    from .batch_maker import BatchSongMaker

    url = options["output"]
    store = RemoteFiles(url) if is_url(url) else ReturnedFiles()
    together = options.get("together")
    new_maker = partial(BatchSongMaker, store, together, filter_of(options))
    given = {name: options[f"worker_{name}"] for name in ("gpus", "cpus") if f"worker_{name}" in options}
    with ray_cluster(options["ray"]):
        pool = RayPool(new_maker, RayWorkers(options.get("workers"), **given), packed_job)
        share = len(jobs) // (4 * pool.count)  # so that all workers end at about the same time
        size = together or (max(1, min(MOST, share)) if pool.gpus else 1)
        return run_batch(jobs, refused, pool, output, report, together=size)


def packed_job(job: BatchJob) -> BatchJob:
    """Return a job with the recording that it edits, for another machine."""
    song = job.content
    return job if song.edited is None else replace(job, content=replace(song, edited=song.edited.packed()))


def is_url(output: str) -> bool:
    """Return True for a URL of fsspec such as s3://bucket/folder."""
    return "://" in output


def filter_of(options: Options) -> MusicFilter | None:
    """Return the filter of --keep. Raises RequestError."""
    from ..audio.measured import MusicFilter

    return MusicFilter.parse(options["keep"]) if "keep" in options else None


def threads_of(device: str) -> int:
    """Return 3 for a GPU: one thread plans, one samples, one writes. On a CPU they would take each other's cores."""
    return 3 if device in ("cuda", "xpu") else 1


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
