"""Compare Takes: the kept take goes on, the page gets matched levels and files, and wrong inputs are refused."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import torch
from pack_under_test.acestep_core.audio import measure_loudness, read_audio
from pack_under_test.nodes.compare import CompareTakesNode

from .odd_inputs import refusal
from .saving import RATE, recording
from .world import World, difference

USUAL = {"keep": 1, "level_match": True, "blind": False}


def scaled(factor: float, batch: int = 1) -> dict:
    audio = recording(batch=batch)
    return {**audio, "waveform": factor * audio["waveform"]}


def check_the_kept_take_goes_on_at_its_level(world: World) -> None:
    takes = {"take_1": scaled(0.5), "take_2": scaled(1.0, batch=2), "take_5": scaled(0.25)}
    for keep, expected in ((1, scaled(0.5)), (4, scaled(0.25))):
        kept = CompareTakesNode.execute(**{**USUAL, **takes, "keep": keep}).args[0]
        assert difference(kept["waveform"], expected["waveform"]) == 0 and kept["sample_rate"] == RATE
    second = CompareTakesNode.execute(**{**USUAL, **takes, "keep": 3}).args[0]["waveform"]
    assert difference(second, scaled(1.0, batch=2)["waveform"][1:]) == 0


def check_the_page_gets_files_of_one_loudness(world: World) -> None:
    takes = {"take_1": scaled(0.5), "take_2": scaled(1.0)}
    shown = CompareTakesNode.execute(**USUAL, **takes).ui["takes"]
    levels = []
    for take in shown:
        path = Path(folder_paths.get_temp_directory(), take["subfolder"], take["filename"])
        levels.append(measure_loudness(read_audio(path)[0], RATE).integrated + take["gain"])
        assert take["seconds"] == 3 and len(take["low"]) == len(take["high"]) > 100
    assert abs(levels[0] - levels[1]) < 0.05 and max(take["gain"] for take in shown) == 0
    again = CompareTakesNode.execute(**{**USUAL, "keep": 2, "level_match": False}, **takes).ui["takes"]
    assert [take["gain"] for take in again] == [0, 0]
    assert [take["filename"] for take in again] == [take["filename"] for take in shown]
    silent = {"waveform": torch.zeros(1, 2, RATE), "sample_rate": RATE}
    assert CompareTakesNode.execute(**USUAL, take_1=silent, take_2=silent).ui["takes"][0]["gain"] == 0


def check_wrong_takes_are_refused(world: World) -> None:
    for inputs, start in (
        ({"take_1": recording()}, "take_2: "),
        ({"take_1": recording(batch=9)}, "take_2: "),
        ({"take_1": recording(batch=2), "keep": 3}, "keep: "),
        ({"take_1": recording(), "take_3": {}}, "take_3: "),
    ):
        sentence = refusal(lambda inputs=inputs: CompareTakesNode.execute(**{**USUAL, **inputs}))
        assert sentence.startswith(start) and "\n" not in sentence, sentence
