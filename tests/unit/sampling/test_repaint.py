import pytest
import torch

from acestep_core.edit.edit import Edit
from acestep_core.edit.tasks import COVER, REPAINT
from acestep_core.sampling.repaint import inject_source, restore_latents
from tests.support.tiny import draw

FRAMES = 100
NOISE, SOURCE, GENERATED = draw(2, FRAMES, 64), draw(1, FRAMES, 64, seed=1), draw(2, FRAMES, 64, seed=2)


def region(**options) -> Edit:
    return Edit(REPAINT, SOURCE, regions=[(1.2, 2.4)], **options)


def test_the_source_is_injected_with_the_noise_of_the_time():
    inject = inject_source(region(), NOISE, SOURCE, steps=4)
    x = inject(1, 0.3, GENERATED)
    assert torch.equal(x[:, 30:60], GENERATED[:, 30:60])
    outside = 0.3 * NOISE + 0.7 * SOURCE
    assert torch.equal(x[:, :30], outside[:, :30]) and torch.equal(x[:, 60:], outside[:, 60:])
    assert inject(2, 0.3, GENERATED) is GENERATED and inject(1, 0.0, GENERATED) is GENERATED


@pytest.mark.parametrize(
    "edit, steps",
    [
        (region(mode="conservative"), 8),
        (region(), 4),
        (region(mode_strength=0.9), 1),
        (region(mode="aggressive"), 0),
        (Edit(COVER, SOURCE), 0),
    ],
)
def test_modes_set_the_number_of_injections(edit, steps):
    inject = inject_source(edit, NOISE, SOURCE, 8)
    assert steps == (inject is not None and sum(inject(i, 0.5, GENERATED) is not GENERATED for i in range(8)))


def test_crossfades_lie_outside_of_the_regions():
    result = restore_latents(region(mode_strength=0.88), GENERATED)  # 3 frames
    assert torch.equal(result[:, 30:60], GENERATED[:, 30:60])
    assert torch.equal(result[:, :27], SOURCE[:, :27].expand(2, -1, -1))
    assert torch.equal(result[:, 63:], SOURCE[:, 63:].expand(2, -1, -1))
    for frame, weight in ((27, 0.25), (28, 0.5), (29, 0.75), (60, 0.75), (61, 0.5), (62, 0.25)):
        mixed = weight * GENERATED[:, frame] + (1 - weight) * SOURCE[:, frame]
        assert torch.allclose(result[:, frame], mixed, atol=1e-6)


def test_modes_set_the_length_of_the_crossfade():
    for edit, frames in ((region(mode="conservative"), 25), (region(), 12)):
        same = (restore_latents(edit, GENERATED) == SOURCE).all(dim=2)
        assert same[:, : 30 - frames].all() and not same[:, 30 - frames : 60 + frames].any()
    assert restore_latents(region(mode="aggressive"), GENERATED) is GENERATED
    assert restore_latents(Edit(COVER, SOURCE), GENERATED) is GENERATED


def test_masks_of_each_song_keep_other_parts():
    mask = torch.zeros(2, FRAMES)
    mask[0, :50], mask[1, 50:] = 1, 1
    result = restore_latents(Edit(REPAINT, SOURCE, mask=mask), GENERATED)
    assert torch.equal(result[0, 62:], SOURCE[0, 62:]) and torch.equal(result[0, :50], GENERATED[0, :50])
    assert torch.equal(result[1, :38], SOURCE[0, :38]) and torch.equal(result[1, 50:], GENERATED[1, 50:])
