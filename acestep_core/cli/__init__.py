"""The `acestep` command: songs without a graph. Heavy packages are imported only by the command that needs them.

`acestep "warm lo-fi piano" -o song.flac` · `acestep repaint song.flac --where 10-15` · `acestep models`
· `acestep doctor`
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence

from ..errors import AceStepError, Cancelled, RequestError
from ..runtime.allocator import keep_freed_memory
from .batch_command import make_batch
from .doctor import examine
from .edit_commands import cover_song, extend_song, morph_song, repaint_song, stems_of_song
from .lora_commands import convert_lora, list_loras
from .model_commands import download_model, list_models
from .picture_command import draw_picture
from .planner_commands import listen_to_song, plan_song, write_song
from .song_command import make_songs
from .terminal import Terminal, shortened
from .times_command import time_song
from .train_commands import label_folder, train_lora

COMMANDS = {
    "plan": plan_song,
    "write": write_song,
    "listen": listen_to_song,
    "repaint": repaint_song,
    "extend": extend_song,
    "cover": cover_song,
    "stems": stems_of_song,
    "morph": morph_song,
    "batch": make_batch,
    "times": time_song,
    "picture": draw_picture,
    "label": label_folder,
    "train": train_lora,
    "models": list_models,
    "loras": list_loras,
    "lora-convert": convert_lora,
    "download": download_model,
    "doctor": examine,
}
PLANNING = (plan_song, write_song, listen_to_song)
OUT_OF_MEMORY = re.compile("out of memory|not enough memory|allocate memory")  # messages of CUDA and of the CPU


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 (failed), 2 (invalid request), 130 (stopped)."""
    if arguments is None:
        keep_freed_memory()  # this process runs the command alone
        arguments = sys.argv[1:]
    arguments = list(arguments)
    command = COMMANDS.get(arguments[0] if arguments else "", make_songs)
    _open_closed_streams()
    terminal = Terminal(sys.stderr)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # for consoles that cannot show every character
    try:
        command(arguments if command is make_songs else arguments[1:], terminal)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        code, message = 130, "stopped"
    except Cancelled as error:
        code, message = 130, str(error)
    except BrokenPipeError:  # the reader has ended, as in `acestep models | head`
        _drop_output()
        return 1
    except AceStepError as error:
        code, message = 2 if isinstance(error, RequestError) else 1, str(error)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        _drop_output()
        code, message = 1, f"standard output cannot be written: {error.strerror}"
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error))):
            raise
        code, message = 1, _out_of_memory(error, command)
    finally:
        terminal.close()
    terminal.line(shortened(f"acestep: {message}"))
    return code


def _open_closed_streams() -> None:
    """Open the null device for each standard stream that the calling process closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _drop_output() -> None:
    """Discard what is still buffered: writing it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _out_of_memory(error: Exception, command: object) -> str:
    advice = "--storage int8, a shorter --duration, a smaller --batch or --dtype bfloat16, on a GPU also --offload or "
    advice += "--stream"
    if command in PLANNING:
        advice = "--storage int8, a smaller --batch or --dtype bfloat16, on a GPU also --offload"
    elif command is train_lora:
        advice = "--storage int8, --recompute, a shorter --crop, a smaller --batch or --dtype bfloat16"
    reason = str(error).splitlines()[0] if str(error) else "no memory left"
    return f"out of memory; try {advice} ({reason})"
