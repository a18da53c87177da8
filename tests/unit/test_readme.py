"""The Python examples of the README run."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
SHORTER = {"duration=20": "duration=9", "batch=2": "batch=1"}


def test_the_python_of_the_readme_runs(tmp_path):
    script = "".join(re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL))
    for shown, shorter in SHORTER.items():
        assert shown in script
        script = script.replace(shown, shorter)
    script += "print(*result.waveform.shape, *other.waveform.shape)\n"
    (tmp_path / "shown.py").write_text(script, encoding="utf-8")
    ran = subprocess.run([sys.executable, "shown.py"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(size) for size in (1, 2, 9 * 48_000) * 2]
