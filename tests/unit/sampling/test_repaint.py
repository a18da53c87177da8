import torch

from acestep_core.edit.edit import Edit
from acestep_core.edit.tasks import COVER, REPAINT
from acestep_core.sampling.repaint import blend, injection, keeping, kept
from tests.support.tiny import draw

FRAMES = 100
NOISE, SOURCE, MADE = draw(2, FRAMES, 64), draw(1, FRAMES, 64, seed=1), draw(2, FRAMES, 64, seed=2)


def region(**options) -> Edit:
    return Edit(REPAINT, SOURCE, regions=[(1.2, 2.4)], **options)


def test_the_source_is_put_back_noised_to_the_time_reached():
    inject = injection(NOISE, SOURCE, region().generated(), steps=2)
    x = inject(1, 0.3, MADE)
    assert torch.equal(x[:, 30:60], MADE[:, 30:60])
    outside = 0.3 * NOISE + 0.7 * SOURCE
    assert torch.equal(x[:, :30], outside[:, :30]) and torch.equal(x[:, 60:], outside[:, 60:])


def test_later_steps_and_the_last_one_are_the_models():
    inject = injection(NOISE, SOURCE, region().generated(), steps=2)
    assert inject(2, 0.3, MADE) is MADE and inject(1, 0.0, MADE) is MADE


def test_modes_inject_in_so_many_steps():
    def injected(edit, steps=8):
        after = keeping(edit, NOISE, SOURCE, steps)
        return 0 if after is None else sum(after(i, 0.5, MADE) is not MADE for i in range(steps))

    assert injected(region(mode="conservative")) == 8
    assert injected(region()) == 4 and injected(region(mode_strength=0.9)) == 1
    assert injected(region(mode="aggressive")) == 0 and injected(Edit(COVER, SOURCE)) == 0


def test_ramps_join_the_two_outside_of_what_was_made():
    result = blend(MADE, SOURCE.expand(2, -1, -1), region().generated().expand(2, -1), ramp=3)
    assert torch.equal(result[:, 30:60], MADE[:, 30:60])
    assert torch.equal(result[:, :27], SOURCE[:, :27].expand(2, -1, -1))
    assert torch.equal(result[:, 63:], SOURCE[:, 63:].expand(2, -1, -1))
    for frame, weight in ((27, 0.25), (28, 0.5), (29, 0.75), (60, 0.75), (61, 0.5), (62, 0.25)):
        assert torch.allclose(result[:, frame], weight * MADE[:, frame] + (1 - weight) * SOURCE[:, frame], atol=1e-6)


def test_what_is_kept_depends_on_the_mode():
    assert torch.equal(kept(region(mode="conservative"), MADE)[:, :5], SOURCE[:, :5].expand(2, -1, -1))
    assert not torch.equal(kept(region(mode="conservative"), MADE)[:, 5:6], SOURCE[:, 5:6].expand(2, -1, -1))
    assert torch.equal(kept(region(), MADE)[:, :18], SOURCE[:, :18].expand(2, -1, -1))
    assert kept(region(mode="aggressive"), MADE) is MADE and kept(Edit(COVER, SOURCE), MADE) is MADE


def test_masks_of_each_song_keep_other_parts():
    mask = torch.zeros(2, FRAMES)
    mask[0, :50], mask[1, 50:] = 1, 1
    result = kept(Edit(REPAINT, SOURCE, mask=mask), MADE)
    assert torch.equal(result[0, 62:], SOURCE[0, 62:]) and torch.equal(result[0, :50], MADE[0, :50])
    assert torch.equal(result[1, :38], SOURCE[0, :38]) and torch.equal(result[1, 50:], MADE[1, 50:])
