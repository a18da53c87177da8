"""Songs in a real ComfyUI server with the flags that users start it with. `python -m tests.gpu.comfyui`

    COMFYUI_PATH=/path/to/ComfyUI python -m tests.gpu.comfyui
    COMFYUI_PATH=/path/to/ComfyUI python -m tests.gpu.comfyui --cpu --only default

Each configuration starts a server, queues two songs of different models at once, unloads the models and repeats the
first song. Its audio is compared with that of the first configuration. Models are the built-in nano in two dtypes.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import soundfile
import torch
from torch import Tensor

from tests.host.graph import load_workflow, to_prompt, with_inputs
from tests.host.server import REPO, ComfyServer
from tests.support.comfyui import NoComfyUI, find_comfyui

from . import report
from .bounds import relative_rms
from .registry import Line, NotHere, at_least, at_most, is_true, measured
from .runner import CheckResult, run_check

PACK = "ACE-Step nodes"
DTYPES = ("bfloat16", "float32")  # of the two models
# Flags choose other kernels, and --fast sums in float16. The audio of another song differs by more than 1.
ALLOWED = 0.3
ERRORS = re.compile(r"Traceback|out of memory|CUDA error|\[ERROR\]", re.IGNORECASE)


@dataclass(frozen=True)
class Configuration:
    """The flags of a server. cpu: True if they work together with --cpu. package: what they need beside ComfyUI."""

    flags: tuple[str, ...] = ()
    cpu: bool = False
    package: str = ""


CONFIGURATIONS = {
    "default": Configuration(cpu=True),
    "lowvram": Configuration(("--lowvram",)),
    "novram": Configuration(("--novram",)),
    "highvram": Configuration(("--highvram",)),
    "fast": Configuration(("--fast",), cpu=True),
    "dynamic memory": Configuration(("--enable-dynamic-vram",)),
    "no dynamic memory": Configuration(("--disable-dynamic-vram",), cpu=True),
    "no dynamic memory, lowvram": Configuration(("--disable-dynamic-vram", "--lowvram")),
    "SageAttention": Configuration(("--use-sage-attention",), package="sageattention"),
    "PyTorch attention": Configuration(("--use-pytorch-cross-attention",), cpu=True),
    "native allocator": Configuration(("--disable-cuda-malloc",)),
    "no asynchronous offload": Configuration(("--disable-async-offload",), cpu=True),
}


def reason_against(configuration: Configuration, comfyui: Path, cpu: bool) -> str:
    """Return why a configuration cannot run here, or an empty string."""
    known = (comfyui / "comfy" / "cli_args.py").read_text("utf-8")
    unknown = [flag for flag in configuration.flags if f'"{flag}"' not in known]
    if unknown:
        return f"this ComfyUI has no {', '.join(unknown)}"
    if cpu and not configuration.cpu:
        return f"{', '.join(configuration.flags)} excludes --cpu or needs a GPU"
    if configuration.package and importlib.util.find_spec(configuration.package) is None:
        return f"the package {configuration.package} is not installed"
    return ""


def song_prompt(server: ComfyServer, dtype: str, seconds: float, steps: int, seed: int = 7) -> dict:
    """Return the shipped text-to-music graph."""
    prompt = to_prompt(load_workflow(REPO / "workflows" / "01 Text to music.json"), server.object_info())
    prompt = with_inputs(prompt, "AS15_SaveSong", filename_prefix=f"{dtype}-{seed}")
    prompt = with_inputs(prompt, "AS15_LoadModel", dtype=dtype)
    return with_inputs(with_inputs(prompt, "AS15_Song", duration=seconds), "AS15_Sample", steps=steps, seed=seed)


def audio_of(server: ComfyServer, prompt_id: str) -> Tensor:
    """Wait for a prompt and return its audio [samples, 2]. Raises AssertionError with ComfyUI's error."""
    run = server.wait(prompt_id)
    assert run.completed, run.error or run.messages
    (file,) = run.files()
    return torch.from_numpy(soundfile.read(io.BytesIO(server.fetch(file)), always_2d=True)[0])


def songs_of(server: ComfyServer, expected: list[Tensor], quick: bool) -> Iterator[Line]:
    """Yield the lines of one running server. `expected` has the songs of an earlier one, or receives them."""
    started = len(server.log)
    seconds, steps = (1.0, 1) if quick else (30.0, 8)
    prompts = [song_prompt(server, dtype, seconds, steps) for dtype in DTYPES]
    found = [audio_of(server, prompt_id) for prompt_id in [server.queue(prompt) for prompt in prompts]]
    yield measured("two songs of two models, queued at once", "done")
    if not expected:
        expected += found
    for dtype, ours, theirs in zip(DTYPES, found, expected, strict=True):
        yield at_most(f"{dtype}: against the first configuration", relative_rms(ours, theirs), ALLOWED)
    server.unload_models(forget=True)
    again = audio_of(server, server.queue(prompts[0]))
    yield at_most(f"{DTYPES[0]}: after Unload models", relative_rms(again, found[0]), 1e-3)
    other = audio_of(server, server.queue(song_prompt(server, DTYPES[0], seconds, steps, seed=8)))
    yield at_least("another seed gives another song", relative_rms(other, found[0]), 0.5)
    errors = errors_in(server.log[started:])  # ComfyUI's start reports packages that its own nodes miss
    yield is_true("no error in the log", not errors, no=f"{len(errors)} lines", reason=" | ".join(errors[:3]))


def errors_in(log: str) -> list[str]:
    """Return the lines that report an error."""
    return [line for line in log.splitlines() if ERRORS.search(line)]


def run_configuration(name: str, expected: list[Tensor], comfyui: Path, cpu: bool, quick: bool) -> CheckResult:
    """Start a server in a new folder and return the result of its songs."""
    configuration = CONFIGURATIONS[name]

    def lines(_: object) -> Iterator[Line]:
        reason = reason_against(configuration, comfyui, cpu)
        if reason:
            raise NotHere(reason)
        flags = (*(("--cpu",) if cpu else ()), *configuration.flags)
        with tempfile.TemporaryDirectory() as folder:
            server = ComfyServer(Path(folder), args=flags, comfyui=comfyui)
            server.install(REPO, PACK)
            with server:
                yield from songs_of(server, expected, quick)

    idle = SimpleNamespace(device=SimpleNamespace(synchronize=lambda: None, release=lambda: None))
    title = " ".join(configuration.flags) or "without flags"
    return run_check(SimpleNamespace(name=name, title=title, run=lines), idle)  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the configurations and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu.comfyui", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", action="store_true", help="start every server with --cpu")
    parser.add_argument("--quick", action="store_true", help="songs of a second, with one step")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=CONFIGURATIONS, help="some configurations")
    parser.add_argument("--out", type=Path, default=Path("comfyui-report.json"), metavar="FILE", help="the JSON file")
    args = parser.parse_args(arguments)
    try:
        comfyui = find_comfyui()
    except NoComfyUI as error:
        print(f"tests.gpu.comfyui: {error}", file=sys.stderr)
        return 2
    machine = report.machine_of("cpu" if args.cpu else "auto")
    print(f"{report.machine_text(machine)}\n\n{report.HEADER}", flush=True)
    expected: list[Tensor] = []
    results = []
    for name in args.only or CONFIGURATIONS:
        results.append(run_configuration(name, expected, comfyui, args.cpu, args.quick))
        print(report.check_text(results[-1]), flush=True)
    report.write_json(args.out, machine, {"cpu": args.cpu, "quick": args.quick, "only": args.only}, results)
    print(f"\n{report.verdict(results, 'ComfyUI', args.out)}")
    return report.exit_code(results)


if __name__ == "__main__":
    raise SystemExit(main())
