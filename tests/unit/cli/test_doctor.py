"""`acestep doctor`: sentences or JSON about each device, and exit code 1 if one is broken."""

import json

import pytest
import torch

from acestep_core.cli import doctor

LATENTS = torch.ones(1, 4, 64)


@pytest.fixture
def songs(monkeypatch):
    """Replace the song of each device."""
    made = {"cpu": LATENTS}

    def song(device, dtype):
        if isinstance(made[device], Exception):
            raise made[device]
        return made[device], 0.5

    monkeypatch.setattr(doctor, "_song", song)
    return made


def test_a_machine_that_works(acestep, songs, models):
    code, out, err = acestep("doctor", "--models-dir", models, model=False)
    assert (code, err) == (0, "")
    assert "cpu: processor" in out and "Models on this machine: nano, turbo, vae" in out
    assert "difference from the CPU's in float32 is 0.00%" in out and out.endswith("Everything works.\n")
    for part in ("transformer float32", "Attention:", "CUDA graphs: not used", f"torch {torch.__version__}"):
        assert part in out


def test_the_report_is_json(acestep, songs):
    code, out, _ = acestep("doctor", "--json", model=False)
    report = json.loads(out)
    assert code == 0 and report["broken"] == [] and report["software"]["torch"] == torch.__version__
    assert report["devices"][0]["song"] == {"seconds": 0.5, "difference": 0.0} and "nano" in report["models"]


@pytest.mark.parametrize(
    ("song", "reason"),
    [
        (LATENTS * 1.2, "its song differs from the CPU's by 20.0%"),
        (LATENTS * torch.nan, "its song differs from the CPU's by nan%"),
        (RuntimeError("CUDA error: no kernel image is available\nmore"), "no kernel image is available"),
    ],
)
def test_a_broken_device_is_named(acestep, songs, monkeypatch, song, reason):
    from acestep_core.runtime import devices

    monkeypatch.setattr(devices, "available_devices", lambda: {"cpu": "processor", "meta": "a broken one"})
    songs["meta"] = song
    code, out, err = acestep("doctor", model=False)
    assert code == 1 and f"BROKEN: {reason}" in out.replace("RuntimeError: CUDA error: ", "")
    assert err.startswith("acestep: doctor: broken on this machine: meta: ") and "Everything works" not in out


def test_a_song_is_made_on_the_cpu(monkeypatch):
    monkeypatch.setattr(doctor, "SECONDS", 1)
    monkeypatch.setattr(doctor, "STEPS", 1)
    latents, seconds = doctor._song("cpu", "float32")
    assert latents.shape == (1, 25, 64) and torch.isfinite(latents).all() and seconds > 0
