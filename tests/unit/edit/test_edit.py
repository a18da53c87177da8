from dataclasses import replace

import pytest
import torch

from acestep_core.config import ModelConfig
from acestep_core.edit.edit import Edit
from acestep_core.edit.morph import Morph
from acestep_core.edit.tasks import COMPLETE, COVER, EXTRACT, LEGO, REPAINT, TEXT2MUSIC
from acestep_core.errors import RequestError
from acestep_core.text.encoder import TextCondition
from tests.support.tiny import draw

SOURCE = draw(1, 100, 64)  # 4 seconds
SOUND = 0.1 * draw(1, 2, 100 * 1920 - 7)
TEXT = TextCondition(draw(1, 3, 8), draw(1, 3, 8), "", "")


def test_a_task_may_be_told_by_its_name():
    assert Edit("cover", SOURCE).task is COVER
    for wrong in ("remix", 5, None):
        with pytest.raises(RequestError, match="unknown task .*; allowed are text2music, "):
            Edit(wrong, SOURCE)


def repaint(**options) -> Edit:
    return Edit(REPAINT, SOURCE, **({"regions": [(1, 2)]} | options))


def test_regions_become_frames():
    assert repaint().generated().nonzero()[:, 1].tolist() == list(range(25, 50))
    assert repaint(regions=[(0.5, 0.59), (3.0, None)]).generated().nonzero()[:, 1].tolist() == [12, 13, *range(75, 100)]
    assert repaint(regions=[(1.0, 1.001)]).generated().sum() == 1  # at least one frame
    assert repaint(regions=[(3.999, 4.0)]).generated().nonzero()[:, 1].tolist() == [99]
    assert Edit(LEGO, SOURCE).generated().all() and not Edit(LEGO, SOURCE).is_partial


@pytest.mark.parametrize("regions", [[(0, 3.9999)], [(0, SOUND.shape[-1] / 48000)], [(0, 2), (2, 3.99988)]])
def test_a_region_to_the_last_sample_reaches_to_the_end_of_its_frame(regions):
    whole = repaint(waveform=SOUND, regions=regions)
    assert whole.generated().all() and not whole.keeps_source
    shorter = repaint(waveform=SOUND[..., :-1900], regions=[(0, 3.96)])  # 20 samples before the last one
    assert not shorter.generated()[0, 99] and shorter.keeps_source


def test_a_mask_is_another_way_to_say_regions():
    mask = torch.zeros(2, 100)
    mask[0, 25:50], mask[1, :10], mask[1, 90:] = 1, 1, 1
    edit = repaint(regions=(), mask=mask)
    assert edit.items == 2 and torch.equal(edit.generated(), mask.bool())
    assert edit.regions_of(0) == ((1.0, 2.0),) and edit.regions_of(1) == ((0.0, 0.4), (3.6, 4.0))
    assert repaint().regions_of(1) == ((1.0, 2.0),)


def test_lengths():
    assert (repaint().frames, repaint().seconds) == (100, 4.0)
    assert repaint(waveform=SOUND).seconds == SOUND.shape[-1] / 48000
    assert Edit(COVER, codes=[(1, 2, 3), ()]).frames == 15
    assert Edit(COVER, SOURCE, codes=[(1, 2, 3), (4,)]).frames == 100


def test_a_song_from_text_with_codes_is_a_cover():
    assert Edit(TEXT2MUSIC, codes=[(1, 2)]).task is COVER


@pytest.mark.parametrize(
    "region, message",
    [
        ((2, 1), "a region ends after it starts, got 2 to 1 seconds"),
        ((1, 1), "a region ends after it starts"),
        ((float("nan"), 1), "start and end are seconds, got nan"),
        ((0, float("inf")), "start and end are seconds"),
        ((-1, 2), "from -1 to 2 seconds reaches out of the song, which is 4 seconds long"),
        ((3, 4.1), "reaches out of the song"),
        ((4, None), "a region ends after it starts, got 4 to 4"),
        (("a", 2), "a start and an end in seconds"),
        (3, "a start and an end in seconds, got 3"),
    ],
)
def test_impossible_regions(region, message):
    with pytest.raises(RequestError, match=message):
        repaint(regions=[region])


def test_a_region_begins_before_the_last_sample():
    with pytest.raises(RequestError, match="reaches out of the song, which is 3.99985 seconds long"):
        repaint(waveform=SOUND, regions=[(3.9999, None)])


IMPOSSIBLE = {
    "nothing to edit": (lambda: Edit(TEXT2MUSIC), "text2music has no source"),
    "nothing to cover": (lambda: Edit(COVER), "cover needs source audio or audio codes"),
    "no source": (lambda: Edit(EXTRACT), "extract needs source audio"),
    "no region": (lambda: Edit(REPAINT, SOURCE), "repaint needs to know where"),
    "region of all": (lambda: Edit(COVER, SOURCE, regions=[(1, 2)]), "cover works on the whole song"),
    "mask of all": (lambda: Edit(EXTRACT, SOURCE, mask=torch.ones(100)), "extract works on the whole song"),
    "mask and regions": (lambda: repaint(mask=torch.ones(100)), "set one of them, not both"),
    "mask of another length": (lambda: repaint(regions=(), mask=torch.ones(99)), "the mask is 99 frames long"),
    "codes for repaint": (lambda: repaint(codes=[(1,)]), "repaint takes no audio codes"),
    "codes unused": (lambda: Edit(COVER, codes=[(1,)], use_codes=False), "codes are given, and use_codes is off"),
    "codes out of range": (lambda: Edit(COVER, codes=[(1, 64000)]), "from 0 to 63999, got 64000 in place 2"),
    "codes negative": (lambda: Edit(COVER, codes=[(-1,)]), "from 0 to 63999, got -1"),
    "flat codes": (lambda: Edit(COVER, codes=(1, 2)), "one list of numbers for each song"),
    "codes too many": (lambda: Edit(COVER, codes=[(1,) * 3001]), "a song has at most 3000 audio codes"),
    "codes of two lengths": (
        lambda: Edit(COVER, codes=[(1,) * 5, (), (2,) * 6]),
        "the songs of one batch must have one length, got codes for 1, 1.2 seconds: make them one by one",
    ),
    "track": (lambda: Edit(LEGO, SOURCE, tracks=("tuba",)), "unknown track 'tuba'"),
    "strength": (lambda: Edit(COVER, SOURCE, strength=1.5), "strength is a number from 0 to 1, got 1.5"),
    "NaN": (
        lambda: Edit(COVER, SOURCE, noise_strength=float("nan")),
        "noise strength is a number from 0 to 1, got nan",
    ),
    "both": (lambda: Edit(COVER, SOURCE, strength=0.5, blend=0.5), "set one of them, not both"),
    "no sound": (lambda: Edit(COVER, codes=[(1,)], noise_strength=0.5), "noise strength needs source audio"),
    "mode": (lambda: repaint(mode="gentle"), "unknown mode 'gentle'; known: conservative, balanced, aggressive"),
    "waveform alone": (lambda: Edit(COVER, codes=[(1,)], waveform=SOUND), "without the latents"),
    "other waveform": (
        lambda: repaint(waveform=SOUND[..., :9600]),
        "5 latent frames long at 48 kHz and its latents are",
    ),
    "mono": (lambda: repaint(waveform=SOUND[:, :1]), "must be stereo"),
    "silent": (lambda: repaint(waveform=0 * SOUND), "the audio is silent"),
    "long": (lambda: Edit(COVER, torch.ones(1, 15001, 64)), "600.04 seconds long"),
    "items": (
        lambda: Edit(COVER, draw(2, 100, 64), codes=[(1,), (2,), (3,)]),
        "one for each song, got 2 sources and 3 lists of codes",
    ),
    "one waveform": (lambda: Edit(LEGO, draw(2, 100, 64), waveform=SOUND), "a waveform for each source.* got 1 for 2"),
    "two waveforms": (lambda: repaint(waveform=SOUND.repeat(2, 1, 1)), "a waveform for each source.* got 2 for 1"),
}


@pytest.mark.parametrize("make, message", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_what_cannot_be(make, message):
    with pytest.raises(RequestError, match=message):
        make()


def test_modes_are_the_originals():
    """Injection ratio 1 − freedom, crossfades of latents and of samples."""
    for options, freedom, frames, seconds in (
        ({"mode": "conservative"}, 0, 25, 0.05),
        ({}, 0.5, 12, 0.025),
        ({"mode_strength": 0.2}, 0.2, 20, 0.04),
        ({"mode_strength": 0.99}, 0.99, 0, 0.0005),
        ({"mode_strength": 1.0}, 1, 0, 0),
        ({"mode": "aggressive"}, 1, 0, 0),
    ):
        edit = repaint(**options)
        assert (edit.freedom, edit.crossfade_frames) == (freedom, frames)
        assert edit.crossfade_seconds == pytest.approx(seconds)
        assert edit.keeps_source == (freedom < 1)
    assert not repaint(regions=[(0, None)]).keeps_source and not Edit(COVER, SOURCE).keeps_source


@pytest.mark.parametrize(
    "edit, word",
    [
        (repaint(strength=0.5), "strength and blend"),
        (repaint(noise_strength=0.5), "noise strength"),
        (Edit(EXTRACT, SOURCE, use_codes=False), "use_codes"),
        (Edit(COVER, SOURCE, mode="aggressive"), "mode and mode strength"),
        (repaint(mode="aggressive", mode_strength=0.1), "mode strength is ignored"),
        (Edit(COVER, SOURCE, codes=[(1, 2)]), "the source gives only the length: what is followed are the audio codes"),
    ],
)
def test_what_is_ignored_is_said(edit, word):
    (sentence,) = edit.ignored_options()
    assert word in sentence
    assert repaint().ignored_options() == Edit(COVER, SOURCE, strength=0.3, noise_strength=0.2).ignored_options() == []


def test_what_only_sample_song_follows():
    assert Edit(COVER, SOURCE).unsupported_by_ksampler() == repaint(mode="aggressive").unsupported_by_ksampler() == []
    said = Edit(COVER, SOURCE, strength=0.5, noise_strength=0.5).unsupported_by_ksampler()
    assert said == ["strength and blend", "noise strength"]
    assert "keeping what is outside" in repaint().unsupported_by_ksampler()[0]


def test_models_that_were_not_trained_for_it_are_refused_unless_allowed():
    turbo, base = ModelConfig(), ModelConfig(is_turbo=False, model_version="base")
    edit = Edit(COMPLETE, SOURCE, tracks="bass")
    with pytest.raises(RequestError, match="this turbo model was not trained for complete: load a base or sft model"):
        edit.check_model(turbo)
    assert edit.check_model(base) is None and repaint().check_model(turbo) is None
    assert "not trained for complete" in replace(edit, allow_untrained=True).check_model(turbo)


def test_versions_of_each_song():
    edit = Edit(COVER, draw(2, 100, 64), codes=[(1,), (2,)]).repeated(2)
    assert edit.codes == ((1,), (1,), (2,), (2,)) and torch.equal(edit.source[0], edit.source[1]) and edit.items == 4
    assert repaint().repeated(3).items == 1
    morph = Morph([TEXT, replace(TEXT)], SOURCE).repeated(2)
    assert morph.conditions[0] is morph.conditions[1] and morph.items == 4


def test_impossible_morphs():
    with pytest.raises(RequestError, match="a morph needs words"):
        Morph([], SOURCE)
    with pytest.raises(RequestError, match="2 conditions and 3 sources"):
        Morph([TEXT, TEXT], draw(3, 10, 64))
    with pytest.raises(RequestError, match="the source must be latents"):
        Morph(TEXT, draw(64, 10))
