"""Exit codes and imports of the command."""

import subprocess
import sys

import pytest
import torch

from acestep_core import pipeline


@pytest.mark.parametrize(
    ("error", "code", "keyword"),
    [
        (KeyboardInterrupt(), 130, "stopped"),
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
