"""The picture of latents."""

from __future__ import annotations

import pytest
import torch

from acestep_core.sampling.preview import HEIGHT, WIDTH, draw_preview


def light(image: torch.Tensor) -> torch.Tensor:
    """Luminance [H, W]."""
    return image.float() @ torch.tensor([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 7, 64), (1, 128, 64), (2, 513, 64), (3, 300, 64), (9, 15_000, 64)])
def test_is_an_image_of_one_size_for_any_song(shape: tuple[int, int, int]) -> None:
    image = draw_preview(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()


def test_time_runs_from_left_to_right_and_loud_is_bright() -> None:
    latents = torch.randn(1, 1000, 64, generator=torch.Generator().manual_seed(0))
    latents[:, :500] *= 0.1
    image = light(draw_preview(latents))
    assert image[:, WIDTH // 2 + 8 :].mean() > 3 * image[:, : WIDTH // 2 - 8].mean()


def test_brighter_is_louder_all_the_way() -> None:
    ramp = torch.linspace(0, 1, 512)[None, :, None] * torch.tensor([1.0, -1.0]).repeat(256)[None, :, None]
    image = light(draw_preview(ramp.expand(1, 512, 64)))[96]
    assert (image.diff() >= -1).all()
    assert image[0] < 15
    assert image[-1] > 230


def test_level_does_not_matter_and_neither_do_broken_numbers() -> None:
    latents = torch.randn(1, 200, 64, generator=torch.Generator().manual_seed(0))
    usual = draw_preview(latents).int()
    assert (draw_preview(5 * latents).int() - usual).abs().max() <= 3
    latents[0, 3, 3] = float("nan")
    assert (draw_preview(latents).int() - usual).abs().float().mean() < 5
    assert draw_preview(torch.zeros(1, 200, 64)).unique().numel() <= 3


def test_a_batch_stands_one_above_the_other() -> None:
    songs = torch.randn(2, 300, 64, generator=torch.Generator().manual_seed(0))
    songs[1] *= torch.linspace(0, 1, 300)[:, None]
    image = light(draw_preview(songs))
    assert image[60, :100].mean() > 2 * image[150, :100].mean()
    assert image[HEIGHT // 2 - 2 : HEIGHT // 2 + 2].max() < 10
