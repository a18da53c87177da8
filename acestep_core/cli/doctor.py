"""The command `acestep doctor`: the devices of this machine, what runs on them and why, and a short song on each."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import AceStepError, first_line
from .terminal import Terminal, printable

if TYPE_CHECKING:
    import torch

SECONDS, STEPS, SEED = 10, 4, 7  # of the song on each device
# Rounding changes nano's latents by 0.9 % in bfloat16, 0.1 % in float16 and 0.0001 % in float32.
ALLOWED = {"bfloat16": 0.08, "float16": 0.01, "float32": 0.001}


def examine(arguments: Sequence[str], terminal: Terminal) -> None:
    """Print what works on this machine. Raises AceStepError if something is broken."""
    parser = argparse.ArgumentParser(
        prog="acestep doctor", description="Describe devices and models, and make a short song on each device."
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON, for a bug report")
    parser.add_argument("--models-dir", metavar="DIR", help="folder of models")
    options = parser.parse_args(arguments)
    report = _examine(options.models_dir)
    print(json.dumps(report, indent=1, ensure_ascii=False) if options.json else printable(_text(report)))
    if report["broken"]:
        raise AceStepError(f"doctor: broken on this machine: {'; '.join(report['broken'])}")


def _examine(models_dir: str | None) -> dict[str, Any]:
    from .. import __version__
    from ..checkpoints.installed import default_roots, list_releases
    from ..runtime.devices import available_devices
    from ..runtime.diagnosis import describe_software

    rows = list_releases(default_roots(models_dir))
    installed = [row.release.name for row in rows if row.found or row.release.repo is None]
    expected = _cpu_song()
    devices = [_examine_device(name, expected) for name in available_devices()]
    return {
        "acestep": __version__,
        "software": describe_software(),
        "devices": devices,
        "models": installed,
        "broken": [f"{each['device']}: {each['error']}" for each in devices if each.get("error")],
    }


def _cpu_song() -> torch.Tensor | Exception:
    """Return the latents that every device is compared with, or the error that there are none."""
    try:
        return _song("cpu", "float32")[0]
    except Exception as error:
        return error


def _examine_device(name: str, expected: torch.Tensor | Exception) -> dict[str, Any]:
    """Return the description of a device and of its song. `error` says what is broken."""
    import torch

    from ..runtime.diagnosis import describe_device

    report: dict[str, Any] = {"device": name}
    try:
        report |= describe_device(torch.device(name))
        if isinstance(expected, Exception):
            raise expected
        latents, seconds = _song(name, "auto")
        difference = float((latents - expected).norm() / expected.norm())
        report["song"] = {"seconds": round(seconds, 2), "difference": difference}
        if not difference <= ALLOWED[report["transformer"]]:  # also if it is not a number
            report["error"] = f"its song differs from the CPU's by {difference:.1%}; use another --dtype or device"
    except Exception as error:  # a driver raises errors of any type
        report["error"] = f"{type(error).__name__}: {first_line(error)}"
    return report


def _song(device: str, dtype: str) -> tuple[torch.Tensor, float]:
    """Return the latents of a song with nano, and the seconds of sampling and decoding it."""
    import torch

    from .. import Metadata, SamplingSettings, Song, generate, load_model

    model = load_model("nano", device=device, dtype=dtype)
    song = Song("warm lo-fi piano", metadata=Metadata(bpm=90, duration=SECONDS))
    started = time.perf_counter()
    result = generate(model, song, seed=SEED, settings=SamplingSettings(steps=STEPS))
    seconds = time.perf_counter() - started
    if not bool(torch.isfinite(result.waveform).all()) or not float(result.waveform.abs().max()) > 0:
        raise AceStepError("its song is silent or not finite")
    return result.latents, seconds


def _text(report: Mapping[str, Any]) -> str:
    """Return the report as sentences."""
    software = report["software"]
    versions = ", ".join(f"{name} {value}" for name, value in software.items() if value not in ("none", ""))
    lines = [f"acestep {report['acestep']} with {versions}."]
    for device in report["devices"]:
        lines += ["", *_device_lines(device)]
    models = ", ".join(report["models"])
    lines += ["", f"Models on this machine: {models}. `acestep models` shows their folders and what can be downloaded."]
    lines.append("Something is broken, see above." if report["broken"] else "Everything works.")
    return "\n".join(lines)


def _device_lines(device: Mapping[str, Any]) -> list[str]:
    lines = [f"{device['device']}: {device.get('name', 'unknown')}"]
    if "memory" in device:
        lines.append(f"  Memory: {device['memory']}. Allocator: {device['allocator']}.")
    if "transformer" in device:
        parts = ", ".join(f"{part} {device[part]}" for part in ("transformer", "text encoder", "VAE", "planner"))
        lines += [
            f"  Dtypes: {parts}, because {device['why these dtypes']}.",
            f"  Attention: {device['attention']}. Storage formats: {device['storage']}.",
            f"  CUDA graphs: {device['CUDA graphs']}. torch.compile: {device['torch.compile']}.",
        ]
    if "song" in device:
        song = device["song"]
        lines.append(
            f"  Song: {SECONDS} s of music with nano took {song['seconds']:.1f} s. "
            f"Its difference from the CPU's in float32 is {song['difference']:.2%}."
        )
    if device.get("error"):
        lines.append(f"  BROKEN: {device['error']}")
    return lines
