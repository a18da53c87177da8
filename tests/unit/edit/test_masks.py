import pytest
import torch

from acestep_core.edit.masks import check_mask, frames_mask, mask_spans, noise_mask, region_mask
from acestep_core.errors import RequestError


def test_region_mask_marks_the_frames_of_its_regions():
    starts = [(0.0399, 0.04), (1.16, 1.17), (10.01, None)]
    assert [region_mask([region], 300).nonzero()[0, 1].item() for region in starts] == [0, 29, 250]
    assert region_mask([(0.0, 0.2), (0.4, None)], 12).nonzero()[:, 1].tolist() == [0, 1, 2, 3, 4, 10, 11]
    assert region_mask([], 12).all()


def test_mask_spans():
    assert mask_spans(torch.tensor([True, False, True, True])) == [(0, 1), (2, 4)]
    assert mask_spans(torch.tensor([False, False])) == []


@pytest.mark.parametrize(
    "mask, keyword",
    [
        (torch.ones(29), "29 frames"),
        (torch.ones(1, 1, 30), r"\[1, 1, 30\]"),
        (torch.zeros(30), "empty"),
        (torch.cat([torch.ones(1, 30), torch.zeros(1, 30)]), "empty"),
        (torch.full((30,), 255.0), "from 0"),
        (torch.full((30,), torch.nan), "from 0"),
        ([1.0] * 30, "list"),
    ],
)
def test_invalid_masks(mask, keyword):
    with pytest.raises(RequestError, match=keyword):
        check_mask(mask, 30)


def test_soft_masks_are_rounded_at_one_half():
    assert check_mask(torch.tensor([0, 0.49, 0.5, 1.0]), 4).tolist() == [[False, False, True, True]]


def test_frames_mask_resizes_an_image():
    image = torch.zeros(1, 8, 64)
    image[..., 32:] = 1
    mask = frames_mask(image, 100)
    assert mask.shape == (100,)
    assert mask[:48].max() < 0.5 < mask[52:].min()
    assert torch.equal(frames_mask(image, 16), torch.cat([torch.zeros(8), torch.ones(8)]))


def test_frames_mask_of_batches_and_any_rank():
    two = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert frames_mask(two, 4).round().tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    assert noise_mask(two[:, None, None], 2).tolist() == two.tolist()  # the shape in a LATENT
    assert frames_mask(two[0], 2).tolist() == [0, 1]


@pytest.mark.parametrize("mask", [torch.ones(1, 1, 1, 120), torch.ones(1), torch.tensor(1.0)])
def test_noise_mask_is_not_stretched(mask):
    with pytest.raises(RequestError, match="noise mask.*150"):
        noise_mask(mask, 150)


def test_empty_image_is_refused():
    with pytest.raises(RequestError, match="at least one value"):
        frames_mask(torch.zeros(1, 0), 4)
