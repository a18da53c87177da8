import pytest
import torch

from acestep_core.config import ModelConfig
from acestep_core.edit.edit import Edit
from acestep_core.errors import RequestError
from acestep_core.sampling.request import SampleRequest, check_items, frames_of
from acestep_core.sampling.settings import TURBO, SamplingSettings
from tests.support.tiny import draw

SOURCE = draw(1, 140, 64)


def request(**inputs) -> SampleRequest:
    return SampleRequest(ModelConfig(), SamplingSettings().resolve(TURBO), **{"seeds": [1], "seconds": 1.0, **inputs})


@pytest.mark.parametrize("seconds, frames", [(0.01, 1), (1, 25), (10.1, 252), (30.0, 750), (600, 15000)])
def test_frames_of_a_duration(seconds, frames):
    assert frames_of(seconds) == request(seconds=seconds).frames == frames


@pytest.mark.parametrize("seconds", [0, -1, 601, float("nan"), float("inf"), None, "30"])
def test_invalid_durations_are_refused(seconds):
    with pytest.raises(RequestError, match="duration.* 600 seconds"):
        frames_of(seconds)


def test_the_source_sets_the_length():
    edit = Edit("cover", SOURCE)
    assert request(edit=edit, seconds=None).frames == request(edit=edit, seconds=5.61).frames == 140
    codes = Edit("cover", codes=[(1, 2, 3)])
    assert request(edit=codes, seconds=None).frames == 15 and request(edit=codes, seconds=2.0).frames == 50


@pytest.mark.parametrize(
    "inputs, keyword",
    [
        ({"seeds": 1}, "seeds.* 1"),
        ({"seeds": []}, "seeds"),
        ({"seconds": None}, "seconds"),
        ({"edit": Edit("cover", SOURCE)}, "5.6 seconds, not 1"),
        ({"retake": 5}, "retake.* 5"),
        ({"retake": ([1, 2], 0.5)}, "2 for"),
        *(({"retake": (2, variance)}, "variance") for variance in (-0.1, 1.1, float("nan"), "much")),
        ({"timbre": torch.ones(1, 750, 64)}, "list"),
        ({"timbre": [torch.ones(1, 64, 30)]}, r"\[1, 64, 30\]"),
        ({"timbre": ["x"]}, "str"),
        ({"timbre": [torch.ones(2, 30, 64)]}, "batch of 2"),
        ({"timbre": [torch.zeros(1, 30, 64)]}, "empty"),
        ({"timbre": [torch.full((1, 3, 64), torch.nan)]}, "NaN"),
    ],
)
def test_invalid_requests(inputs, keyword):
    with pytest.raises(RequestError, match=keyword):
        request(**inputs)


def test_an_input_is_for_one_song_or_for_each():
    check_items("edit", 1, 3)
    check_items("edit", 3, 3)
    with pytest.raises(RequestError, match="edit is for 2 songs.* 3"):
        check_items("edit", 2, 3)


def test_retake_seeds():
    assert request(seeds=[5, 7], retake=(8, 0.5)).retake_seeds == [8, 9]
    assert request(seeds=[5, 7], retake=(8, 0.0)).retake_seeds == request(seeds=[5, 7]).retake_seeds == [5, 7]
