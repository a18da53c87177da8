"""Exit codes and imports of the command."""

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
import torch

from acestep_core import pipeline, read_audio, write_audio
from acestep_core.audio import read_settings
from acestep_core.cli import planner_commands
from acestep_core.errors import Cancelled
from acestep_core.song.song import Song
from acestep_core.song.song_file import SavedSong, to_json


@pytest.mark.parametrize(
    ("error", "code", "keyword"),
    [
        (KeyboardInterrupt(), 130, "stopped"),
        (Cancelled("stopped by the user during sample"), 130, "stopped"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore"), 1, "--storage int8"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), 1, "out of memory"),
    ],
)
def test_interruptions_and_out_of_memory_end_with_one_line(acestep, monkeypatch, tmp_path, error, code, keyword):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "generate", fail)
    returned, out, err = acestep("piano", "--duration", 1)
    last = err.splitlines()[-1]
    assert (returned, out) == (code, "") and last.startswith("acestep: ") and keyword in last
    assert list(tmp_path.iterdir()) == []


def test_other_errors_keep_their_traceback(acestep, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(pipeline, "generate", fail)
    with pytest.raises(RuntimeError, match="illegal"):
        acestep("piano", "--duration", 1)


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["plan", "--help"]])
def test_torch_is_imported_only_by_commands_that_need_it(arguments):
    code = (
        "import sys, contextlib; from acestep_core import cli\n"
        f"with contextlib.suppress(SystemExit): cli.main({arguments})\n"
        "print([m for m in ('torch', 'numpy', 'transformers', 'tokenizers', 'soundfile') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_make_a_song_as_well(models, tmp_path, closed):
    options = f"--model '{models}' --device cpu --dtype float32 --duration 1 --steps 1 --lyrics - -o a.flac"
    command = f"'{sys.executable}' -m acestep_core piano {options} {closed}"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, input="[Verse]\nla\n", text=True, check=True)
    assert read_audio(tmp_path / "a.flac").shape[-1] == 48_000


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
def test_a_song_file_may_come_from_a_pipe(acestep, tmp_path):
    content = to_json([SavedSong(Song("piano", lyrics="la " * 5000))])
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(content,), daemon=True)
    writer.start()
    code, out, err = acestep("--from", "pipe", "--duration", 1, "--steps", 1, "-o", "a.flac")
    assert code == 0, err
    assert read_settings("a.flac")["caption"] == "piano"


def test_a_note_of_a_model_and_tags_of_a_song_cannot_control_the_terminal(acestep, models, tmp_path):
    shutil.copytree(models, tmp_path / "copy")
    (config,) = (path for path in (tmp_path / "copy").rglob("config.json") if "acestep_note" in path.read_text())
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"acestep_note": "note \x1b[31m \x9b \u202e" + "x" * 10_000}))
    tags = {"caption": "c \x1b[31m", "seed": 1, "duration": 1, "unrecorded": ["unknown \x1b[31m \x9b \u202e"]}
    write_audio("a.wav", torch.rand(2, 4800), settings=tags)
    place = ("--model", tmp_path / "copy", "--device", "cpu")
    code, out, err = acestep("--from", "a.wav", *place, "-o", "b.wav", model=False)
    assert code == 0 and "note \\u001b[31m" in err and "unknown \\u001b[31m" in err
    assert not {*"\x1b\x9b\u202e"} & {*out, *err} and max(map(len, err.splitlines())) < 3000


def test_printed_songs_cannot_control_the_terminal(capsys):
    song = Song("a \x1b[31m \x9b \u202e b")
    planner_commands._print(to_json([SavedSong(song)]))
    out = capsys.readouterr().out
    assert not {*"\x1b\x9b\u202e"} & {*out} and json.loads(out)["caption"] == song.caption


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_a_full_standard_output_ends_with_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "acestep_core", "models"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1 and done.stderr.startswith("acestep: ") and done.stderr.count("\n") == 1
