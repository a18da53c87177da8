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
    find_task,
    instruction,
    model_family,
    untrained_warning,
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


def test_tracks():
    assert len(set(TRACKS)) == 12
    for task, tracks, keyword in (
        (COMPLETE, ["tuba"], "'tuba'.*woodwinds"),
        (EXTRACT, ["bass", "drums"], "at most 1"),
        (REPAINT, ["bass"], "at most 0"),
    ):
        with pytest.raises(RequestError, match=keyword):
            instruction(task, tracks)


@pytest.mark.parametrize(
    "version, turbo, name",
    [("turbo", True, "turbo"), ("xl-sft", False, "sft"), ("xl-base", False, "base"), ("mine", False, "base")],
)
def test_model_families(version, turbo, name):
    assert model_family(replace(BASE, model_version=version, is_turbo=turbo)) == name


@pytest.mark.parametrize("task", [EXTRACT, LEGO, COMPLETE])
def test_untrained_warning_names_the_trained_models(task):
    assert untrained_warning(task, BASE) is None
    assert untrained_warning(task, replace(BASE, model_version="sft")) is None
    assert "base or sft" in untrained_warning(task, ModelConfig())
    assert untrained_warning(REPAINT, ModelConfig()) is None


def test_tasks_are_found_by_name():
    assert all(find_task(name) is find_task(task) is task for name, task in TASKS.items())
    with pytest.raises(RequestError, match="'remix'.*cover"):
        find_task("remix")
