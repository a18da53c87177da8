from dataclasses import replace

import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.edit.edit import Edit
from acestep_core.edit.tasks import COMPLETE, COVER, EXTRACT, LEGO, REPAINT
from acestep_core.errors import Cancelled, RequestError
from acestep_core.sampling.code_latents import tokenize_latents
from acestep_core.sampling.context import (
    context_latents,
    frames_to_run,
    pad_with_silence,
    silent_context,
)
from tests.support import tiny
from tests.support.tiny import draw

FRAMES = 50
SOURCE = draw(2, FRAMES, 64)


@pytest.fixture(scope="module")
def network():
    return tiny.model()


def test_short_songs_run_at_the_minimum_length():
    assert [frames_to_run(frames) for frames in (1, 127, 128, 251)] == [128, 128, 128, 251]


def test_context_of_a_song_from_text_is_silence_and_a_mask_of_ones(network):
    context = context_latents(network, None, 3, 70)
    assert context.shape == (3, 70, 128)
    assert torch.equal(context[2, :, :64], network.silence(70)[0]) and (context[..., 64:] == 1).all()


def test_context_of_a_cover_is_the_latents_of_its_codes(network):
    context = context_latents(network, Edit(COVER, SOURCE), 2, FRAMES + 3)
    for i in range(2):
        hint = network.detokenize(network.tokenize(SOURCE[i : i + 1]))
        assert torch.equal(context[i, :FRAMES, :64], hint[0])
    assert torch.equal(context[1, FRAMES:, :64], network.silence(FRAMES + 3)[0, FRAMES:])
    assert (context[..., 64:] == 1).all()


def test_codes_of_a_source_give_the_same_context(network):
    codes = tokenize_latents(network, SOURCE)
    assert len(codes) == 2 and len(codes[0]) == 10 and codes[0] != codes[1]
    assert torch.equal(
        context_latents(network, Edit(COVER, codes=codes), 2, 128),
        context_latents(network, Edit(COVER, SOURCE), 2, 128),
    )


def test_codes_are_tokenized_in_chunks_with_progress(network, monkeypatch):
    whole, reports = tokenize_latents(network, SOURCE), []
    monkeypatch.setattr("acestep_core.sampling.code_latents.CODES_PER_CHUNK", 4)
    assert tokenize_latents(network, SOURCE, callbacks=Callbacks(progress=reports.append)) == whole
    assert [(report.stage, report.step, report.total) for report in reports] == [
        ("tokenize", i, 6) for i in range(1, 7)
    ]
    with pytest.raises(Cancelled, match="tokenize"):
        context_latents(network, Edit(COVER, SOURCE), 2, 128, callbacks=Callbacks(cancelled=lambda: True))


def test_a_song_without_codes_has_silence(network):
    context = context_latents(network, Edit(COVER, codes=[(5, 6), ()]), 2, 20)
    assert torch.equal(context[1, :, :64], network.silence(20)[0])
    assert torch.equal(context[0, :10, :64], network.detokenize(torch.tensor([[5, 6]]))[0])


@pytest.mark.parametrize(
    "edit", [Edit(COVER, SOURCE, use_codes=False), *(Edit(task, SOURCE) for task in (EXTRACT, LEGO, COMPLETE))]
)
def test_context_of_other_tasks_is_the_source_itself(network, edit):
    context = context_latents(network, edit, 2, FRAMES)
    assert torch.equal(context[..., :64], SOURCE) and (context[..., 64:] == 1).all()


def test_context_of_a_repaint_is_silent_in_its_regions(network):
    edit = Edit(REPAINT, SOURCE[:1], regions=[(0.2, 0.4), (1.0, None)])
    context = context_latents(network, edit, 3, 128)
    generated = torch.zeros(128, dtype=torch.bool)
    generated[5:10], generated[25:50] = True, True
    silence = network.silence(128)[0]
    assert torch.equal(
        context[2, :, :64], torch.where(generated[:, None], silence, pad_with_silence(SOURCE[:1], silence[None])[0])
    )
    assert torch.equal(
        context[..., 64:], generated.float()[:, None].expand(3, -1, 64)
    )  # the silence after a short song is kept


def test_context_of_lego_is_the_whole_source(network):
    context = context_latents(network, Edit(LEGO, SOURCE[:1], regions=[(1.0, 1.2)]), 1, FRAMES)
    assert torch.equal(context[..., :64], SOURCE[:1])
    assert context[0, :, 127].nonzero().flatten().tolist() == list(range(25, 30))


def test_masks_of_each_song(network):
    mask = torch.zeros(2, FRAMES)
    mask[0, :10], mask[1, 40:] = 1, 1
    context = context_latents(network, Edit(REPAINT, SOURCE[:1], mask=mask), 2, FRAMES)
    assert torch.equal(context[..., 64], mask)
    assert torch.equal(context[1, :40, :64], SOURCE[0, :40]) and torch.equal(context[0, 10:, :64], SOURCE[0, 10:])


def test_auto_mask(network):
    edit = Edit(REPAINT, SOURCE[:1], regions=[(1.0, 1.2)], auto_mask=True)
    assert (context_latents(network, edit, 1, FRAMES)[..., 64:] == 2).all()
    assert (silent_context(network, edit, 1, FRAMES)[..., 64:] == 2).all()


def test_silent_context_is_that_of_a_song_from_text(network):
    assert torch.equal(silent_context(network, Edit(COVER, SOURCE), 2, 128), context_latents(network, None, 2, 128))


def test_unsupported_codes():
    few = tiny.model(replace(tiny.STANDARD, fsq_input_levels=(4, 4)))
    with pytest.raises(RequestError, match="0 to 15, got 16"):
        context_latents(few, Edit(COVER, codes=[(15, 16)]), 1, FRAMES)
    without = tiny.model()
    without.tokenizer = None
    with pytest.raises(RequestError, match="tokenizer"):
        context_latents(without, Edit(COVER, SOURCE), 2, FRAMES)
    assert context_latents(without, Edit(COVER, SOURCE, use_codes=False), 2, FRAMES).shape == (2, FRAMES, 128)
