"""The `acestep` command on a tiny model."""

import pytest

from acestep_core import cli
from tests.support import tiny_checkpoint, tiny_text

tiny_tokenizer_dir = tiny_text.tiny_tokenizer_dir


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_tokenizer_dir):
    root = tmp_path_factory.mktemp("models")
    tiny_checkpoint.write_tiny_checkpoint(root, tiny_tokenizer_dir)
    return root


@pytest.fixture
def acestep(models, tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder, on the tiny model; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=True):
        extra = ["--model", str(models), "--device", "cpu", "--dtype", "float32"] if model else []
        try:
            code = cli.main([*map(str, arguments), *extra])
        except SystemExit as stop:  # argparse
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run
