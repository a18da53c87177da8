"""Silence latents: the checkpoint's own, else encoded with the VAE."""

from __future__ import annotations

import zipfile

import pytest
import torch

from acestep_core.callbacks import Callbacks, Progress
from acestep_core.checkpoints.silence import (
    ENCODED_FRAMES,
    START_FRAMES,
    encode_silence,
    ensure_silence,
    stored_silence,
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
    with pytest.raises(CheckpointError, match="plain numbers"):
        stored_silence(tmp_path / "silence_latent.pt")


def refused(file) -> str:
    with pytest.raises(CheckpointError) as caught:
        stored_silence(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("frames", [1, 60, 2**40])
def test_an_expanded_silence_is_refused(tmp_path, frames):
    """Its file is tiny, and the tensor may be larger than the memory."""
    torch.save(torch.zeros(1, 64, 1).expand(1, 64, frames), tmp_path / "silence_latent.pt")
    if frames == 1:
        assert stored_silence(tmp_path / "silence_latent.pt").shape == (1, 1, 64)
    else:
        assert "fewer numbers" in refused(tmp_path / "silence_latent.pt")
    torch.save(torch.zeros(()).expand(1, 64, 60), tmp_path / "silence_latent.pt")
    assert "fewer numbers" in refused(tmp_path / "silence_latent.pt")


def test_a_compressed_silence_is_not_unpacked(tmp_path, monkeypatch):
    file, packed = tmp_path / "silence_latent.pt", tmp_path / "packed.pt"
    torch.save(torch.zeros(1, 64, 10_000), file)
    with zipfile.ZipFile(file) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    monkeypatch.setattr(torch, "load", None)
    assert "unpack" in refused(packed)


def test_an_error_of_torch_is_one_line(tmp_path):
    """torch's own message has frames of C++."""
    file = tmp_path / "silence_latent.pt"
    torch.save(torch.zeros(1, 64, 60), file)
    file.write_bytes(file.read_bytes()[:-100])
    assert "cannot be read" in refused(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("other", "x")
    assert "cannot be read" in refused(file)
    file.write_bytes(b"\x80\x02" + b"]" * 100_000)
    refused(file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_silence_that_overflows_is_refused(dtype):
    class Overflowing:
        def encode(self, waveform):
            return torch.full((1, ENCODED_FRAMES, 8), float("inf"))

    with pytest.raises(NonFiniteError, match="NaN"):
        encode_silence(Overflowing(), torch.device("cpu"), dtype)


def test_encoded_silence_equals_the_start_of_a_longer_encoding():
    vae = tiny.vae()
    silence = encode_silence(vae, torch.device("cpu"), torch.float32)
    assert silence.shape == (1, START_FRAMES + 1, 8) and not silence.is_inference()
    longer = vae.encode(torch.zeros(1, 2, (ENCODED_FRAMES + 30) * HOP))
    torch.testing.assert_close(silence[:, :START_FRAMES], longer[:, :START_FRAMES])
    interior = longer[:, START_FRAMES:-START_FRAMES]
    torch.testing.assert_close(interior, silence[:, -1:].expand_as(interior))


def test_ensure_silence_keeps_the_checkpoints_own(caplog):
    model = tiny.model()
    own = model.silence_latent
    ensure_silence(model, tiny.vae())
    assert model.silence_latent is own

    model.silence_latent = None
    with caplog.at_level("INFO", "acestep"), torch.inference_mode():
        ensure_silence(model, tiny.vae())
    assert model.silence_latent.shape == (1, START_FRAMES + 1, 8)
    assert torch.equal(model.silence_latent, encode_silence(tiny.vae(), torch.device("cpu"), torch.float32))
    assert "encoded with the VAE" in caplog.text


def test_encoding_silence_reports_progress_and_can_be_cancelled():
    model, reports = tiny.model(), []
    model.silence_latent = None
    with pytest.raises(Cancelled):
        ensure_silence(model, tiny.vae(), Callbacks(cancelled=lambda: True))
    assert model.silence_latent is None
    ensure_silence(model, tiny.vae(), Callbacks(progress=reports.append))
    assert reports == [Progress("encode silence", 1, 1)]
