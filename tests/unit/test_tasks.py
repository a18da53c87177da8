from __future__ import annotations

import pytest

from acestep_core.errors import RequestError
from acestep_core.tasks import COVER, TASKS, TEXT2MUSIC, find_task


def test_trained_instructions():
    assert TEXT2MUSIC.instruction == "Fill the audio semantic mask based on the given conditions:"
    assert COVER.instruction == "Generate audio semantic tokens based on the given conditions:"


def test_what_a_task_needs():
    assert not TEXT2MUSIC.needs_source
    assert COVER.needs_source
    assert TEXT2MUSIC.variants == ("turbo", "sft", "base")


def test_tasks_are_found_by_name():
    assert all(find_task(name) is task for name, task in TASKS.items())
    with pytest.raises(RequestError, match="unknown task 'remix'; allowed are text2music, cover"):
        find_task("remix")
