import pytest
import torch

from acestep_core.audio.reference import reference_audio, reference_pieces
from acestep_core.errors import RequestError

RATE = 48_000


def ramp(seconds, rate=RATE):
    """Return audio whose samples are their own times, divided by 1000."""
    return (torch.arange(seconds * rate, dtype=torch.float32) / (1000 * rate)).expand(1, 2, -1)


def test_three_pieces_of_a_long_recording():
    reference = reference_audio(ramp(90), RATE)
    assert reference.shape == (1, 2, 30 * RATE)
    seconds = reference[0, 0] * 1000
    assert seconds[[0, 10 * RATE, 20 * RATE]].tolist() == pytest.approx([0, 30, 80], abs=1e-3)
    assert seconds[-1].item() == pytest.approx(90, abs=1e-3)


def test_a_short_recording_is_repeated_whole():
    reference = reference_audio(ramp(7), RATE)[0, 0]
    repeated = ramp(7)[0, 0].repeat(5)  # 35 s
    assert torch.equal(reference[: 10 * RATE], repeated[: 10 * RATE])
    assert torch.equal(reference[-10 * RATE :], repeated[-10 * RATE :])


def test_the_result_is_deterministic_and_independent_of_the_batch():
    sound = torch.rand(2, 1, 31 * 8000, generator=torch.Generator().manual_seed(0))
    reference = reference_audio(sound, 8000)
    assert reference.shape == (2, 2, 30 * RATE)
    assert torch.equal(reference, reference_audio(sound, 8000))
    assert torch.equal(reference[1:], reference_audio(sound[1:], 8000))


def test_loud_audio_is_clamped():
    assert reference_audio(3 * ramp(30).sin() + 2, RATE).amax() == 1


def test_silence_is_refused():
    with pytest.raises(RequestError, match="silent"):
        reference_audio(torch.zeros(1, 2, RATE), RATE)


def test_pieces_at_another_rate():
    assert reference_pieces(torch.arange(90.0)[None, None], rate=1)[0, 0].tolist() == [
        *range(10), *range(30, 40), *range(80, 90),
    ]  # fmt: skip


def test_only_the_part_is_used():
    sound = ramp(90)
    assert torch.equal(reference_audio(sound, RATE, 10, 42.5), reference_audio(sound[..., 480_000:2_040_000], RATE))
    assert torch.equal(reference_audio(sound, RATE, 80), reference_audio(sound[..., 3_840_000:], RATE))
    assert torch.equal(reference_audio(sound, RATE, 0, 90.004), reference_audio(sound, RATE))


@pytest.mark.parametrize(
    ("start", "end", "word"),
    [(90, None, "start"), (-1, 5, "start"), (float("nan"), 5, "start"), (5, 5, "end"), (7, 3, "end"), (5, 91, "end"),
     (5, float("nan"), "end"), (1, 2, "silent"), (2, 2.000001, "empty")],
)  # fmt: skip
def test_a_part_that_is_none_is_refused(start, end, word):
    sound = ramp(90).clone()
    sound[..., RATE : 2 * RATE] = 0
    with pytest.raises(RequestError, match=word):
        reference_audio(sound, RATE, start, end)
