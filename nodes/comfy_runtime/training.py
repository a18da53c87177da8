"""The training process: its command, its reports, its end."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import comfy.model_management as mm
import comfy.utils

from ...acestep_core.errors import RequestError, shortened
from ...acestep_core.files import atomic_write
from ...acestep_core.train.train_state import LOSSES, read_losses
from .load import BUNDLED_TOKENIZER
from .loss_picture import AVERAGED, WIDTH, draw_losses, mean_losses
from .progress import show_values

if TYPE_CHECKING:
    from PIL import Image

    from ...acestep_core.checkpoints.find import Checkpoint

log = logging.getLogger("acestep")

PACK = Path(__file__).parents[2]
# Not `-m`, because some Pythons (that of ComfyUI's portable version) find neither the current folder nor PYTHONPATH.
PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from acestep_core.cli import main; sys.exit(main())"
DEVICES = ("cpu", "cuda", "mps", "xpu")
POLL = 0.2  # seconds between two looks at the interrupt
PATIENCE = 60.0  # seconds for the state after an interrupt; then the process is killed
ERROR = "acestep: "  # starts the last line of a command that failed
REDRAWN = 10  # steps between two pictures of the losses, as the process writes them
PICTURE = "loss.png"
TAIL = 20  # lines of the log in case of a crash


def training_device() -> str:
    """Return ComfyUI's device, as the core names it."""
    device = mm.get_torch_device()
    return str(device) if device.type in DEVICES else "auto"


def run_training(songs: Path, parts: Checkpoint, options: Mapping[str, Any], restart: bool, losses: Path) -> None:
    """Run `acestep train` in a process of its own.

    ComfyUI's models are unloaded first. An interrupt stops the process, which saves its state before it ends. The
    process also ends if ComfyUI does.

    parts: the files of the model. options: of the command, by their names. losses: the loss table, whose curve is the
    preview of the node.

    Raises RequestError with the sentence of the process.
    """
    mm.unload_all_models()
    mm.soft_empty_cache()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(PACK), "train", str(songs), *_arguments(parts, options, restart)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    with _stopped(process):
        reports, tail = _Reports(losses), deque[str](maxlen=TAIL)
        for name, line in _lines(process):
            if name == "stderr":
                tail.append(line)
                log.info("training: %s", shortened(line))
            else:
                reports.add(line)
        code = process.wait()
    if code:
        raise RequestError(_failure(code, list(tail)))


def _arguments(parts: Checkpoint, options: Mapping[str, Any], restart: bool) -> list[str]:
    given = {**options, "model": parts.network, "vae": parts.vae, "text_encoder": parts.text_encoder}
    if parts.text_encoder is not None and not parts.text_encoder.is_dir():
        given["tokenizer"] = parts.tokenizer or BUNDLED_TOKENIZER
    given["device"] = training_device()
    named = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    return [*named, "--json", "--stop-with-input", *(["--restart"] if restart else [])]


@contextlib.contextmanager
def _stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the process with the block: by the end of its input, or if it does not follow, by force."""
    assert process.stdin and process.stdout and process.stderr
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the process has ended
            process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[tuple[str, str]]:
    """Yield the lines of both outputs. Raises ComfyUI's exception if the user interrupts."""
    lines: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()

    def read(name: str, stream: IO[bytes]) -> None:
        for line in stream:
            lines.put((name, line.decode("utf-8", "replace").rstrip()))
        lines.put(None)

    streams = {"stdout": process.stdout, "stderr": process.stderr}
    for item in streams.items():
        threading.Thread(target=read, args=item, daemon=True).start()
    open_streams = len(streams)
    while open_streams:
        mm.throw_exception_if_processing_interrupted()
        try:
            line = lines.get(timeout=POLL)
        except queue.Empty:
            continue
        if line is None:
            open_streams -= 1
        else:
            yield line


class _Reports:
    """The JSON lines of the process: progress bars, notes, and a preview of the loss curve."""

    def __init__(self, losses: Path) -> None:
        self._losses, self._drawn = losses, 0
        self._stage, self._bar = "", comfy.utils.ProgressBar(1)

    def add(self, line: str) -> None:
        try:
            report = json.loads(line)
        except ValueError:  # printed by another library
            return
        if not isinstance(report, dict):
            return
        if report.get("left_out"):  # the others are on Song Folder
            show_values(report["problem"])
        if "stage" in report:
            self._progress(report["stage"], report["step"], report["total"])

    def _progress(self, stage: str, step: int, total: int) -> None:
        if stage != self._stage:
            self._stage, self._bar = stage, comfy.utils.ProgressBar(total)
        self._bar.update_absolute(step, total, self._picture(step) if stage == "train" else None)

    def _picture(self, step: int) -> tuple[str, Image.Image, int] | None:
        """Return the loss curve every few steps."""
        if step - self._drawn < REDRAWN:
            return None
        self._drawn, means = step, mean_losses(read_losses(self._losses))
        return ("JPEG", draw_losses(means), WIDTH) if len(means) > 1 else None


def shown_losses(folder: Path, parent: str) -> tuple[str, dict[str, str]]:
    """Draw the loss curve of a finished training into its folder. Return a line about it, and the file for the page.

    parent: of the folder, in ComfyUI's output folder. Raises RequestError.
    """
    means = mean_losses(read_losses(folder / LOSSES))
    content = io.BytesIO()
    draw_losses([*means, *means][: max(2, len(means))]).save(content, "PNG")
    try:
        with atomic_write(folder / PICTURE) as file:
            file.write(content.getvalue())
    except OSError as error:
        raise RequestError(f"{folder / PICTURE} cannot be written: {error.strerror or error}") from error
    first = means[min(AVERAGED, len(means)) - 1]
    line = f"{len(means)} steps, mean loss {first:.3f} at first, {means[-1]:.3f} at last"
    return line, {"filename": PICTURE, "subfolder": f"{parent}/{folder.name}", "type": "output"}


def lowest_held_out(losses: Path) -> tuple[int, float] | None:
    """Return the step with the lowest loss of the held-out songs and this loss, None without such songs."""
    measured = [(row.held_out, row.step) for row in read_losses(losses) if row.held_out is not None]
    return None if not measured else (min(measured)[1], min(measured)[0])


def _failure(code: int, lines: Sequence[str]) -> str:
    """Return a sentence on a process that failed."""
    reason = next((line.removeprefix(ERROR) for line in reversed(lines) if line.startswith(ERROR)), None)
    if reason is not None:
        reason = shortened(reason)
        if reason.startswith("out of memory"):
            return "crop: out of memory. Choose a shorter crop, int8 as storage or a lower rank, and run again."
        if reason.startswith("dataset: "):
            return f"songs: {reason.removeprefix('dataset: ')}"
        return f"restart: {reason}" if "holds a run" in reason else reason
    end = f"was killed by signal {-code}, as by a lack of memory" if code < 0 else f"ended with code {code}"
    last = next((line for line in reversed(lines) if line.strip()), "nothing was printed")
    return f"songs: the training process {end}. Run again to continue it. The last line: {shortened(last)[:300]}"
