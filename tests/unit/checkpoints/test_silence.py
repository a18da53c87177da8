"""Silence latents: the checkpoint's own, else encoded, else tabulated."""

from __future__ import annotations

import re

import pytest
import torch

from acestep_core.callbacks import Callbacks, Progress
from acestep_core.checkpoints.build import ensure_silence
from acestep_core.checkpoints.silence import (
    ENCODED_FRAMES,
    START_FRAMES,
    encoded_silence,
    stored_silence,
    tabulated_silence,
)
from acestep_core.config import HOP
from acestep_core.errors import Cancelled, CheckpointError, NonFiniteError
from tests.support import tiny


def test_silence_file_is_channels_first(tmp_path):
    latent = tiny.draw(1, 64, 20)
    torch.save(latent.to(torch.bfloat16), tmp_path / "silence_latent.pt")
    silence = stored_silence(tmp_path / "silence_latent.pt")
    assert silence.shape == (1, 20, 64) and silence.dtype == torch.float32 and silence.is_contiguous()
    assert torch.equal(silence, latent.to(torch.bfloat16).float().transpose(1, 2))


def test_square_silence_is_channels_first_too(tmp_path):
    latent = tiny.draw(1, 64, 64)
    torch.save(latent, tmp_path / "silence_latent.pt")
    assert torch.equal(stored_silence(tmp_path / "silence_latent.pt"), latent.transpose(1, 2))


@pytest.mark.parametrize("latent", [torch.zeros(1, 64, 9).to_sparse(), torch.zeros(1, 64, 9, dtype=torch.complex64)])
def test_silence_is_plain_numbers(tmp_path, latent):
    torch.save(latent, tmp_path / "silence_latent.pt")
    with pytest.raises(CheckpointError, match="should hold plain numbers"):
        stored_silence(tmp_path / "silence_latent.pt")


@pytest.mark.parametrize(("dtype", "told"), [
    (torch.float16, "in float32 too; its file may be damaged"),
    (torch.bfloat16, "in bfloat16; load it in float32 (vae dtype)"),
    (torch.float32, "in float32; its file may be damaged"),
], ids=str)  # fmt: skip
def test_silence_that_overflows_is_refused(dtype, told):
    class Overflowing:
        def encode(self, waveform):
            return torch.full((1, ENCODED_FRAMES, 8), float("inf"))

    with pytest.raises(NonFiniteError, match=re.escape(f"the VAE produced NaN or infinity {told}")):
        encoded_silence(Overflowing(), torch.device("cpu"), dtype)


def test_encoded_silence_is_what_a_long_encode_gives():
    vae = tiny.vae()
    silence = encoded_silence(vae, torch.device("cpu"), torch.float32)
    assert silence.shape == (1, START_FRAMES + 1, 8) and not silence.is_inference()
    longer = vae.encode(torch.zeros(1, 2, (ENCODED_FRAMES + 30) * HOP))
    # What is kept does not depend on how much was encoded, and the kept interior frame is every interior frame.
    torch.testing.assert_close(silence[:, :START_FRAMES], longer[:, :START_FRAMES])
    interior = longer[:, START_FRAMES:-START_FRAMES]
    torch.testing.assert_close(interior, silence[:, -1:].expand_as(interior))


def test_table_is_the_published_one():
    silence = tabulated_silence()
    assert silence.shape == (1, 5, 64)
    assert silence[0, 0, :3].tolist() == torch.tensor([0.5707, 0.0982, 0.6909]).tolist()
    assert silence[0, 4, -1] == 1.0
    assert (silence[0, 3] - silence[0, 4]).abs().max() < 0.2  # it has settled
    assert (silence[0, 0] - silence[0, 4]).abs().max() > 1  # and the start differs


def test_ensure_silence_takes_the_best_there_is(caplog):
    model = tiny.model()
    own = model.silence_latent
    ensure_silence(model, tiny.vae())
    assert model.silence_latent is own

    model.silence_latent = None
    with caplog.at_level("INFO", "acestep"):
        ensure_silence(model)
    assert torch.equal(model.silence_latent, tabulated_silence())
    assert torch.equal(model.silence(9)[:, 5:], tabulated_silence()[:, 4:].expand(1, 4, 64))

    model.silence_latent = None
    with caplog.at_level("INFO", "acestep"), torch.inference_mode():
        ensure_silence(model, tiny.vae())
    assert model.silence_latent.shape == (1, START_FRAMES + 1, 8)
    assert "taken from a table" in caplog.text and "encoded with the VAE" in caplog.text


def test_hearing_silence_can_be_watched_and_stopped():
    model, seen = tiny.model(), []
    model.silence_latent = None
    with pytest.raises(Cancelled):
        ensure_silence(model, tiny.vae(), Callbacks(cancelled=lambda: True))
    assert model.silence_latent is None
    ensure_silence(model, tiny.vae(), Callbacks(progress=seen.append))
    assert seen == [Progress("encode silence", 1, 1)]
