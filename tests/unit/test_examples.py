"""The scripts of `docs/examples/` run as they are."""

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.parametrize(
    ("script", "target", "files"),
    [
        ("song.py", "song.flac", ["song.flac"]),
        ("edit.py", "edit.flac", ["edit.flac"]),
        ("batch.py", "", ["1.flac", "2.flac", "3.flac", "4.flac"]),
    ],
)
def test_an_example_runs(tmp_path, script, target, files):
    subprocess.run([sys.executable, EXAMPLES / script, "2", tmp_path / target], check=True, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert all(soundfile.info(tmp_path / name).duration == pytest.approx(2) for name in files)
