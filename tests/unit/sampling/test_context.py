import torch

from acestep_core.sampling.context import frames_to_run, text_to_music_context


def test_short_songs_run_at_the_minimum_length():
    assert [frames_to_run(frames) for frames in (1, 127, 128, 251)] == [128, 128, 128, 251]


def test_context_is_silence_as_source_and_a_mask_of_ones():
    silence = torch.randn(1, 130, 64)
    context = text_to_music_context(silence, 3)
    assert context.shape == (3, 130, 128)
    assert torch.equal(context[2, :, :64], silence[0]) and (context[..., 64:] == 1).all()
