from __future__ import annotations

from dataclasses import replace

import pytest

from acestep_core.config import ModelConfig
from acestep_core.edit.tasks import (
    COMPLETE,
    COVER,
    EXTRACT,
    LEGO,
    REPAINT,
    TASKS,
    TEXT2MUSIC,
    TRACKS,
    family,
    find_task,
    instruction,
    untrained,
)
from acestep_core.errors import RequestError

BASE = ModelConfig(is_turbo=False, model_version="base")


def test_trained_instructions():
    assert instruction(TEXT2MUSIC) == "Fill the audio semantic mask based on the given conditions:"
    assert instruction(COVER) == "Generate audio semantic tokens based on the given conditions:"
    assert instruction(REPAINT) == "Repaint the mask area based on the given conditions:"
    assert instruction(EXTRACT) == "Extract the track from the audio:"
    assert instruction(EXTRACT, ["backing_vocals"]) == "Extract the BACKING_VOCALS track from the audio:"
    assert instruction(LEGO) == "Generate the track based on the audio context:"
    assert instruction(LEGO, "drums") == "Generate the DRUMS track based on the audio context:"
    assert instruction(COMPLETE) == "Complete the input track:"
    assert instruction(COMPLETE, ["bass", "fx"]) == "Complete the input track with BASS | FX:"


def test_the_twelve_tracks():
    assert len(set(TRACKS)) == 12
    with pytest.raises(RequestError, match="unknown track 'tuba'; allowed are woodwinds, brass, .*vocals"):
        instruction(COMPLETE, ["tuba"])
    with pytest.raises(RequestError, match="extract works on 1 at most of the tracks, got bass, drums"):
        instruction(EXTRACT, ["bass", "drums"])
    with pytest.raises(RequestError, match="repaint works on none of the tracks, got bass"):
        instruction(REPAINT, ["bass"])


def test_what_a_task_needs():
    assert not TEXT2MUSIC.needs_source
    assert all(task.needs_source for task in TASKS.values() if task is not TEXT2MUSIC)
    assert TEXT2MUSIC.variants == ("turbo", "sft", "base")


@pytest.mark.parametrize(
    "version, turbo, name",
    [("turbo", True, "turbo"), ("xl-sft", False, "sft"), ("xl-base", False, "base"), ("mine", False, "base")],
)
def test_families(version, turbo, name):
    assert family(replace(BASE, model_version=version, is_turbo=turbo)) == name


@pytest.mark.parametrize("task", [EXTRACT, LEGO, COMPLETE])
def test_who_can_do_it_instead(task):
    assert untrained(task, BASE) is None and untrained(task, replace(BASE, model_version="sft")) is None
    sentence = f"this turbo model was not trained for {task.name}: load a base or sft model"
    assert sentence in untrained(task, ModelConfig())
    assert untrained(REPAINT, ModelConfig()) is None


def test_tasks_are_found_by_name():
    assert all(find_task(name) is find_task(task) is task for name, task in TASKS.items())
    with pytest.raises(RequestError, match="unknown task 'remix'; allowed are text2music, cover"):
        find_task("remix")
