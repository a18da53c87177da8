import os
from pathlib import Path

import pytest
import torch

# The tests' networks are tiny: threads gain them nothing, and waiting for each other on a busy machine costs much.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start

# The files of more than half a minute start first, so that no worker is left alone with one of them at the end.
LONGEST = [
    "host/test_inside.py",
    "gpu/test_simulated.py",
    "host/test_planner.py",
    "host/test_native.py",
    "sound/test_nano.py",
    "sound/test_lyric_times.py",
    "unit/cli/test_edit_commands.py",
    "sound/test_edits.py",
    "unit/runtime/test_on_cuda.py",
    "unit/test_examples.py",
    "sound/test_training.py",
    "unit/test_style.py",
    "browser/test_canvas.py",
    "host/test_install.py",
    "host/test_workflows.py",
    "host/test_training.py",
    "host/test_previews.py",
    "unit/planner/test_grammar.py",
    "host/test_text_to_music.py",
    "host/test_files.py",
    "gpu/test_device.py",
    "browser/test_forms.py",
    "unit/test_readme.py",
    "host/test_bad_input.py",
    "sound/test_adapters.py",
    "unit/test_benchmarks.py",
    "browser/test_text.py",
    "gpu/test_comfyui.py",
    "unit/train/test_train_adapter.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))
