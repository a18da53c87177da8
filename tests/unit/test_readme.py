"""What the README shows of the Python side is what there is."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_python_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    known: dict = {}
    for block in blocks:
        shorter = block.replace("duration=20", "duration=9").replace("batch=2", "batch=1")
        assert shorter != block or known
        exec(shorter, known)
    assert known["result"].waveform.shape == known["other"].waveform.shape == (1, 2, 9 * 48_000)
