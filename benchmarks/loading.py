"""Load a checkpoint of 1 GB: time and memory against safetensors' `load_file`, each in a fresh process.

    python -m benchmarks.loading                   file cached and cold, to bfloat16 and float32
    python -m benchmarks.loading --song            time from a path to the first song instead

"Cold" drops the file from the page cache before each run. It needs a temporary folder (TMPDIR) on a disk. The memory
limit of each run is the mapped file, the part of the result outside the map, and one tensor. A process that exceeds its
limit fails, as it would be killed on a full machine. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from acestep_core import Metadata, Song, generate, load_model
from acestep_core.checkpoints.build import load_network
from acestep_core.checkpoints.catalog import NANO
from acestep_core.config import ModelConfig
from acestep_core.models.model import AceStepModel

from .common import in_child, log_progress, table

# The 2B network with fewer layers of the same size. The number of its transformer layers sets the size of the file.
SMALL = replace(
    ModelConfig(),
    num_lyric_encoder_hidden_layers=1,
    num_timbre_encoder_hidden_layers=1,
    num_attention_pooler_hidden_layers=1,
)
SONG_SECONDS = 10
NANO_TEXT, NANO_VAE = NANO / "Qwen3-Embedding-0.6B", NANO / "vae"


def write_checkpoint(folder: Path, gigabytes: float) -> None:
    """Write a random bfloat16 checkpoint of about that size in the original layout, for nano's text encoder."""
    from safetensors.torch import save_file

    small = replace(SMALL, text_hidden_dim=json.loads((NANO_TEXT / "config.json").read_text())["hidden_size"])
    fixed, layer = (_bytes(replace(small, num_hidden_layers=count)) for count in (0, 1))
    layers = max(1, round((gigabytes * 1e9 - fixed) / (layer - fixed)))
    model = AceStepModel(replace(small, num_hidden_layers=layers), device="meta", dtype=torch.bfloat16)
    noise = torch.randn(1 << 20).mul(0.02).to(torch.bfloat16)
    state = {name: noise.repeat(t.numel() // len(noise) + 1)[: t.numel()].reshape(t.shape).clone()
             for name, t in model.state_dict().items()}  # fmt: skip
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(model.config)))
    shutil.copy(*NANO.glob("*/silence_latent.pt"), folder)


def _bytes(config: ModelConfig) -> int:
    return 2 * sum(t.numel() for t in AceStepModel(config, device="meta").state_dict().values())


def ours(folder: Path, dtype: torch.dtype) -> nn.Module:
    return load_network(folder, dtype=dtype)[0]


def _empty(folder: Path, dtype: torch.dtype) -> AceStepModel:
    """Build the network on the meta device, with its silence latent."""
    config = json.loads((folder / "config.json").read_text())
    config["fsq_input_levels"] = tuple(config["fsq_input_levels"])
    model = AceStepModel(ModelConfig(**config), device="meta", dtype=dtype)
    silence = torch.load(folder / "silence_latent.pt", weights_only=True)
    model.silence_latent = silence.transpose(1, 2).to(torch.float32).contiguous()
    return model


def copied(folder: Path, dtype: torch.dtype) -> nn.Module:
    """Allocate the weights and copy the mapped file into them."""
    from safetensors.torch import load_file

    model = _empty(folder, dtype).to_empty(device="cpu")
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def assigned(folder: Path, dtype: torch.dtype) -> nn.Module:
    """Use the mapped file as the weights, and cast them."""
    from safetensors.torch import load_file

    model = _empty(folder, dtype)
    model.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
    return model.to(dtype)


CANDIDATES: dict[str, Callable[[Path, torch.dtype], nn.Module]] = {
    "ours": ours,
    "load_file(), assign=True": assigned,
    "load_file(), copied": copied,
}


def measure(name: str, folder: Path, dtype: torch.dtype) -> dict[str, float]:
    """Load once. `complete` includes a read of every page, as a mapped page is read on its first use."""
    torch.empty(1, device="meta").normal_()  # torch's imports for the meta device are not part of loading
    started = time.perf_counter()
    model = CANDIDATES[name](folder, dtype)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        touched = sum(float(parameter.view(-1)[::512].float().sum()) for parameter in model.parameters())
    complete = time.perf_counter() - started
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return {"seconds": seconds, "complete": complete, "size": size, "touched": touched}


def fits(name: str, folder: Path, dtype: torch.dtype) -> bool:
    """Return True if a load stays within the mapped file, the result outside the map, and one tensor."""
    shapes = [parameter.numel() for parameter in _empty(folder, dtype).parameters()]
    result = 0 if dtype == torch.bfloat16 else sum(shapes) * dtype.itemsize
    room = (folder / "model.safetensors").stat().st_size + result + max(shapes) * dtype.itemsize
    used = 1024 * int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    resource.setrlimit(resource.RLIMIT_DATA, (round(used + 1.05 * room), resource.RLIM_INFINITY))
    try:
        CANDIDATES[name](folder, dtype)
        return True
    except (RuntimeError, MemoryError):
        return False


def forget(path: Path) -> None:
    """Drop a file from the page cache. Linux only."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)  # unwritten pages would stay
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def first_song(folder: Path, seconds: int) -> dict[str, float]:
    """Time a song from the path of its checkpoint, imports included, with nano's text encoder and VAE."""
    started = time.perf_counter()
    model = load_model(folder, text_encoder=NANO_TEXT, vae=NANO_VAE)
    loaded = time.perf_counter() - started
    generate(model, Song("warm piano", metadata=Metadata(duration=seconds)), seed=0)
    return {"loaded": loaded, "complete": time.perf_counter() - started}


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    return sorted(runs, key=lambda run: run["complete"])[len(runs) // 2]


def first_songs(folder: Path, runs: int) -> str:
    """Return the table of first songs, with the file cached and cold in turn."""
    file = folder / "model.safetensors"
    results: dict[str, list[dict[str, float]]] = {"cached": [], "cold": []}
    for number in range(runs):
        for state, found in results.items():
            log_progress(f"song {number + 1} of {runs}, file {state}")
            if state == "cold":
                forget(file)
            found.append(in_child(__spec__.name, "--song", "--folder", str(folder)))
    medians = {state: _median(found) for state, found in results.items()}
    return table(
        f"The first song, {SONG_SECONDS} s, with a network of {file.stat().st_size / 1e9:.2f} GB",
        ["file", "first song", "load_model returns"],
        [[state, f"{run['complete']:.2f} s", f"{run['loaded']:.2f} s"] for state, run in medians.items()],
    )


def compare(folder: Path, dtype: str, runs: int) -> str:
    """Return the table of all ways to load into `dtype`, medians of alternating runs."""
    file = folder / "model.safetensors"
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    for state in ("cached", "cold"):
        for number in range(runs):
            for name in CANDIDATES:
                log_progress(f"{dtype}, file {state}, run {number + 1} of {runs}: {name}")
                if state == "cold":
                    forget(file)
                run = in_child(__spec__.name, "--one", name, "--folder", str(folder), "--dtype", dtype)
                results.setdefault((name, state), []).append(run)
    rows = []
    for name in CANDIDATES:
        log_progress(f"{dtype}, memory limit: {name}")
        # A fixed threshold, or malloc keeps freed memory and the limit does not hold.
        limited = in_child(__spec__.name, "--limit", name, "--folder", str(folder), "--dtype", dtype,
                           MALLOC_MMAP_THRESHOLD_="65536")  # fmt: skip
        row = [name]
        for state in ("cached", "cold"):
            run, reference = _median(results[name, state]), _median(results["ours", state])
            row += [f"{run['complete'] / reference['complete']:.2f}×", f"{run['complete']:.2f} s"]
        rows.append([*row, f"{_median(results[name, 'cached'])['seconds']:.2f} s", "yes" if limited["fits"] else "no"])
    return table(
        f"Loading {file.stat().st_size / 1e9:.2f} GB of bfloat16 as {dtype}",
        ["way", "cached", "until usable", "cold", "until usable", "call returns (cached)", "within the memory limit"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the checkpoint")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="only this dtype")
    parser.add_argument("--song", action="store_true", help="only the time to the first song")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--limit", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.folder, getattr(torch, args.dtype))))
        return
    if args.limit:
        print(json.dumps({"fits": fits(args.limit, args.folder, getattr(torch, args.dtype))}))
        return
    if args.folder:
        print(json.dumps(first_song(args.folder, SONG_SECONDS)))
        return
    folder = Path(tempfile.mkdtemp(prefix="acestep-loading-"))
    try:
        log_progress(f"Writing a checkpoint of {args.gigabytes:g} GB")
        write_checkpoint(folder, args.gigabytes)
        if args.song:
            print(first_songs(folder, args.runs))
            return
        for dtype in (args.dtype,) if args.dtype else ("bfloat16", "float32"):
            print(compare(folder, dtype, args.runs))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
