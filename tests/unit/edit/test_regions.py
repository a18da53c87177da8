import pytest
import torch

from acestep_core.edit.regions import frames_mask, noise_mask, parse_regions, widen
from acestep_core.errors import RequestError


def test_ranges_are_read():
    assert parse_regions("10-15, 40-") == ((10, 15), (40, None))
    assert parse_regions("-5; 7.5 – 8\n9 to 10.25,") == ((0, 5), (7.5, 8), (9, 10.25))
    assert parse_regions("0:01-0:02.5；1:20-，90-10:00、-2") == ((1, 2.5), (80, None), (90, 600), (0, 2))
    assert parse_regions(" ") == ()


@pytest.mark.parametrize("text", ["-", "ten-12", "5", "1-2-3", "3--4"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(RequestError, match="a range is two numbers of seconds"):
        parse_regions(text)


def test_regions_reach_into_the_song():
    assert widen(((0.0, 4.0), (10.0, 12.0)), 1.5, 12.0) == ((0, 5.5), (8.5, 12))
    with pytest.raises(RequestError, match="overlap"):
        widen(((0.0, 4.0),), -1.0, 12.0)


@pytest.mark.parametrize(
    "regions, overlap, seconds",
    [(((6.0, 26.0),), 10.0, 6), (((6.0, 26.0),), 5.97, 6), (((0.0, 2.0), (8.0, 9.0)), 3.0, 6)],
)
def test_an_overlap_leaves_something_of_the_song(regions, overlap, seconds):
    with pytest.raises(RequestError, match=f"an overlap of {overlap:g} seconds leaves nothing of .* {seconds} seconds"):
        widen(regions, overlap, regions[-1][1])
    assert widen(regions, 2.9, regions[-1][1])
    assert widen(((0.0, 3.0), (3.0, 9.0)), 0.0, 9.0)  # what was nothing before is not the overlap's fault


def test_a_picture_becomes_frames():
    picture = torch.zeros(1, 8, 64)
    picture[..., 32:] = 1
    mask = frames_mask(picture, 100)
    assert mask.shape == (100,)
    assert mask[:48].max() < 0.5 < mask[52:].min()
    assert torch.equal(frames_mask(picture, 16), torch.cat([torch.zeros(8), torch.ones(8)]))


def test_a_mask_for_each_item_and_of_any_rank():
    two = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert frames_mask(two, 4).round().tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    assert noise_mask(two[:, None, None], 2).tolist() == two.tolist()  # as a LATENT has it
    assert frames_mask(two[0], 2).tolist() == [0, 1]


@pytest.mark.parametrize("mask", [torch.ones(1, 1, 1, 120), torch.ones(1), torch.tensor(1.0)])
def test_the_mask_of_a_latent_is_not_stretched(mask):
    with pytest.raises(RequestError, match=r"noise mask is (120|1|0) frames long, the song 150 \(25 a second\)"):
        noise_mask(mask, 150)


def test_a_mask_of_nothing_is_refused():
    with pytest.raises(RequestError, match="at least one value"):
        frames_mask(torch.zeros(1, 0), 4)
