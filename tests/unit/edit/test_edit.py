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


def test_a_task_may_be_given_by_its_name():
    assert Edit("cover", SOURCE).task is COVER
    for wrong in ("remix", 5, None):
        with pytest.raises(RequestError, match="unknown task"):
            Edit(wrong, SOURCE)


def repaint(**options) -> Edit:
    return Edit(REPAINT, SOURCE, **({"regions": [(1, 2)]} | options))


def test_regions_become_frames():
    assert repaint().generated_mask().nonzero()[:, 1].tolist() == list(range(25, 50))
    assert repaint(regions=[(0.5, 0.59), (3.0, None)]).generated_mask().nonzero()[:, 1].tolist() == [
        12,
        13,
        *range(75, 100),
    ]
    assert repaint(regions=[(1.0, 1.001)]).generated_mask().sum() == 1  # at least one frame
    assert repaint(regions=[(3.999, 4.0)]).generated_mask().nonzero()[:, 1].tolist() == [99]
    assert Edit(LEGO, SOURCE).generated_mask().all() and not Edit(LEGO, SOURCE).is_partial


@pytest.mark.parametrize("regions", [[(0, 3.9999)], [(0, SOUND.shape[-1] / 48000)], [(0, 2), (2, 3.99988)]])
def test_a_region_to_the_last_sample_reaches_to_the_end_of_its_frame(regions):
    whole = repaint(waveform=SOUND, regions=regions)
    assert whole.generated_mask().all() and not whole.keeps_source
    shorter = repaint(waveform=SOUND[..., :-1900], regions=[(0, 3.96)])  # 20 samples before the last one
    assert not shorter.generated_mask()[0, 99] and shorter.keeps_source


def test_a_mask_replaces_regions():
    mask = torch.zeros(2, 100)
    mask[0, 25:50], mask[1, :10], mask[1, 90:] = 1, 1, 1
    edit = repaint(regions=(), mask=mask)
    assert edit.items == 2 and torch.equal(edit.generated_mask(), mask.bool())
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
    "region, keyword",
    [
        ((2, 1), "after the start"),
        ((1, 1), "after the start"),
        ((float("nan"), 1), "nan"),
        ((0, float("inf")), "inf"),
        ((-1, 2), "out of the song"),
        ((3, 4.1), "out of the song"),
        ((4, None), "after the start"),
        (("a", 2), "in seconds"),
        (3, "in seconds"),
    ],
)
def test_invalid_regions(region, keyword):
    with pytest.raises(RequestError, match=keyword):
        repaint(regions=[region])


def test_a_region_begins_before_the_last_sample():
    with pytest.raises(RequestError, match="3.99985 seconds"):
        repaint(waveform=SOUND, regions=[(3.9999, None)])


INVALID = {
    "nothing to edit": (lambda: Edit(TEXT2MUSIC), "no source"),
    "nothing to cover": (lambda: Edit(COVER), "source audio or audio codes"),
    "no source": (lambda: Edit(EXTRACT), "source audio"),
    "no region": (lambda: Edit(REPAINT, SOURCE), "regions"),
    "region of all": (lambda: Edit(COVER, SOURCE, regions=[(1, 2)]), "whole song"),
    "mask of all": (lambda: Edit(EXTRACT, SOURCE, mask=torch.ones(100)), "whole song"),
    "mask and regions": (lambda: repaint(mask=torch.ones(100)), "not both"),
    "mask of another length": (lambda: repaint(regions=(), mask=torch.ones(99)), "99 frames"),
    "codes for repaint": (lambda: repaint(codes=[(1,)]), "codes"),
    "codes unused": (lambda: Edit(COVER, codes=[(1,)], use_codes=False), "use_codes"),
    "codes out of range": (lambda: Edit(COVER, codes=[(1, 64000)]), "got 64000"),
    "codes negative": (lambda: Edit(COVER, codes=[(-1,)]), "got -1"),
    "flat codes": (lambda: Edit(COVER, codes=(1, 2)), "list of numbers"),
    "codes too many": (lambda: Edit(COVER, codes=[(1,) * 3001]), "3000"),
    "codes of two lengths": (lambda: Edit(COVER, codes=[(1,) * 5, (), (2,) * 6]), "one length.* 1, 1.2 seconds"),
    "track": (lambda: Edit(LEGO, SOURCE, tracks=("tuba",)), "tuba"),
    "strength": (lambda: Edit(COVER, SOURCE, strength=1.5), "strength.* 1.5"),
    "NaN": (lambda: Edit(COVER, SOURCE, noise_strength=float("nan")), "noise_strength.* nan"),
    "strength and blend": (lambda: Edit(COVER, SOURCE, strength=0.5, blend=0.5), "not both"),
    "no sound": (lambda: Edit(COVER, codes=[(1,)], noise_strength=0.5), "noise_strength"),
    "mode": (lambda: repaint(mode="gentle"), "'gentle'.*conservative"),
    "waveform alone": (lambda: Edit(COVER, codes=[(1,)], waveform=SOUND), "waveform"),
    "waveform of another length": (lambda: repaint(waveform=SOUND[..., :9600]), "5 latent frames"),
    "mono": (lambda: repaint(waveform=SOUND[:, :1]), "stereo"),
    "long": (lambda: Edit(COVER, torch.ones(1, 15001, 64)), "600.04 seconds"),
    "items": (lambda: Edit(COVER, draw(2, 100, 64), codes=[(1,), (2,), (3,)]), "2 sources and 3 lists"),
    "one waveform": (lambda: Edit(LEGO, draw(2, 100, 64), waveform=SOUND), "waveform.* 1 for 2"),
    "two waveforms": (lambda: repaint(waveform=SOUND.repeat(2, 1, 1)), "waveform.* 2 for 1"),
}


@pytest.mark.parametrize("make, keyword", INVALID.values(), ids=INVALID.keys())
def test_invalid_edits(make, keyword):
    with pytest.raises(RequestError, match=keyword):
        make()


def test_modes_match_the_original():
    """Freedom, crossfade of latents, crossfade of samples."""
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
        (repaint(noise_strength=0.5), "noise_strength"),
        (Edit(COVER, SOURCE, mode="aggressive"), "mode and mode_strength"),
        (repaint(mode="aggressive", mode_strength=0.1), "mode_strength is ignored"),
        (Edit(COVER, SOURCE, codes=[(1, 2)]), "only the length"),
    ],
)
def test_ignored_options(edit, word):
    (sentence,) = edit.ignored_options()
    assert word in sentence
    assert repaint().ignored_options() == Edit(COVER, SOURCE, strength=0.3, noise_strength=0.2).ignored_options() == []


def test_options_that_ksampler_does_not_support():
    assert Edit(COVER, SOURCE).unsupported_by_ksampler() == repaint(mode="aggressive").unsupported_by_ksampler() == []
    options = Edit(COVER, SOURCE, strength=0.5, noise_strength=0.5).unsupported_by_ksampler()
    assert options == ["strength and blend", "noise_strength"]
    assert "outside of the regions" in repaint().unsupported_by_ksampler()[0]


def test_untrained_models_are_refused_unless_allowed():
    turbo, base = ModelConfig(), ModelConfig(is_turbo=False, model_version="base")
    edit = Edit(COMPLETE, SOURCE, tracks="bass")
    with pytest.raises(RequestError, match="turbo.*not trained for complete"):
        edit.check_model(turbo)
    assert edit.check_model(base) is None and repaint().check_model(turbo) is None
    assert "not trained for complete" in replace(edit, allow_untrained=True).check_model(turbo)


def test_repeated_edits_and_morphs():
    edit = Edit(COVER, draw(2, 100, 64), codes=[(1,), (2,)]).repeated(2)
    assert edit.codes == ((1,), (1,), (2,), (2,)) and torch.equal(edit.source[0], edit.source[1]) and edit.items == 4
    assert repaint().repeated(3).items == 1
    morph = Morph([TEXT, replace(TEXT)], SOURCE).repeated(2)
    assert morph.conditions[0] is morph.conditions[1] and morph.items == 4


def test_invalid_morphs():
    with pytest.raises(RequestError, match="description"):
        Morph([], SOURCE)
    with pytest.raises(RequestError, match="2 conditions and 3 sources"):
        Morph([TEXT, TEXT], draw(3, 10, 64))
    with pytest.raises(RequestError, match="latents"):
        Morph(TEXT, draw(64, 10))


@pytest.mark.parametrize("name", ["regions", "mask", "tracks", "codes", "waveform", "source"])
def test_a_number_is_no_list(name):
    with pytest.raises(RequestError, match=name):
        Edit(**{"task": "repaint", "source": SOURCE, "regions": [(0, 1)], name: 3})
