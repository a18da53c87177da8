"""Loading a file of 1 GB: time and peak memory against the usual ways, each in a fresh process.

    python -m benchmarks.loading --gigabytes 1 --runs 3
    python -m benchmarks.loading --cold            from the disk: the page cache has lost the file before each run
    python -m benchmarks.loading --song            only the time from a path to the first song, cached and cold

Peak memory is counted twice: what belongs to the process alone, and with the pages of the mapped file, which a system
counts as the process's too (and kills it for) while they are mapped. Cold needs a temporary folder (TMPDIR) that is on
a disk, not in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
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

from .common import in_child, megabytes, table

# The 2B network with fewer, equally large layers; the number of its transformer layers makes the size.
SMALL = replace(
    ModelConfig(),
    num_lyric_encoder_hidden_layers=1,
    num_timbre_encoder_hidden_layers=1,
    num_attention_pooler_hidden_layers=1,
)
SONG_SECONDS = 10
NANO_TEXT, NANO_VAE = NANO / "Qwen3-Embedding-0.6B", NANO / "vae"


def write_checkpoint(folder: Path, gigabytes: float) -> None:
    """A bfloat16 checkpoint in the original layout, of about that size, that reads what nano's text encoder gives."""
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
    config = json.loads((folder / "config.json").read_text())
    config["fsq_input_levels"] = tuple(config["fsq_input_levels"])
    return AceStepModel(ModelConfig(**config), device="meta", dtype=dtype)


def copied(folder: Path, dtype: torch.dtype) -> nn.Module:
    """Room for the weights, the file mapped into a dict, and a copy."""
    from safetensors.torch import load_file

    model = _empty(folder, dtype).to_empty(device="cpu")
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def assigned(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The file mapped into a dict, which becomes the weights, and a cast. Without a cast they stay in the mapped file:
    no copy, but a file that changes changes them too."""
    from safetensors.torch import load_file

    model = _empty(folder, dtype)
    model.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
    return model.to(dtype)


CANDIDATES: dict[str, Callable[[Path, torch.dtype], nn.Module]] = {
    "ours": ours,
    "load_file, copied": copied,
    "load_file, assigned": assigned,
}


class Peaks:
    """Samples the growth of private and of all resident memory. Linux only."""

    def __enter__(self) -> Peaks:
        self.private, self.resident, self._stop = 0, 0, threading.Event()
        self._base = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    @staticmethod
    def _now() -> tuple[int, int]:
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
        return (resident - shared) * 4096, resident * 4096

    def _sample(self) -> None:
        private, resident = self._now()
        self.private = max(self.private, private - self._base[0])
        self.resident = max(self.resident, resident - self._base[1])

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self._sample()

    def __exit__(self, *_: object) -> None:
        self._sample()
        self._stop.set()
        self._thread.join()


def measure(name: str, folder: Path, dtype: torch.dtype) -> dict[str, float]:
    """Loads once; the weights are summed after the clock has stopped, to page in what was only mapped."""
    torch.empty(1, device="meta").normal_()  # torch's imports for the meta device are not loading
    with Peaks() as peaks:
        started = time.perf_counter()
        model = CANDIDATES[name](folder, dtype)
        seconds = time.perf_counter() - started
        with torch.no_grad():
            touched = sum(float(parameter.view(-1)[::512].float().sum()) for parameter in model.parameters())
        complete = time.perf_counter() - started
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return {"seconds": seconds, "complete": complete, "private": peaks.private, "resident": peaks.resident,
            "size": size, "touched": touched}  # fmt: skip


def forget(path: Path) -> None:
    """Drops a file from the page cache. Linux only."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)  # what is not on the disk yet would stay
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def first_song(folder: Path, seconds: int) -> dict[str, float]:
    """From a path to a song, with nano's text encoder and autoencoder. The imports on the way count too."""
    started = time.perf_counter()
    model = load_model(folder, text_encoder=NANO_TEXT, vae=NANO_VAE)
    loaded = time.perf_counter() - started
    generate(model, Song("warm piano", metadata=Metadata(duration=seconds)), seed=0)
    return {"loaded": loaded, "complete": time.perf_counter() - started}


def first_songs(folder: Path, runs: int) -> str:
    """With the file cached and cold, in turn; medians."""
    file, results = folder / "model.safetensors", {"cached": [], "cold": []}
    for _ in range(runs):
        for way, found in results.items():
            if way == "cold":
                forget(file)
            found.append(in_child(__spec__.name, "--song", "--folder", str(folder)))
    medians = {way: sorted(found, key=lambda r: r["complete"])[runs // 2] for way, found in results.items()}
    return table(
        f"The first song, {SONG_SECONDS} s, with a network of {file.stat().st_size / 1e9:.2f} GB",
        ["file", "first song", "load_model returns"],
        [[way, f"{r['complete']:.2f} s", f"{r['loaded']:.2f} s"] for way, r in medians.items()],
    )


def compare(folder: Path, dtype: str, runs: int, cold: bool) -> str:
    """All candidates in turn, the median of each by time until the weights are usable."""
    file = folder / "model.safetensors"
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
    for _ in range(runs):
        for name in CANDIDATES:
            if cold:
                forget(file)
            results[name].append(in_child(__spec__.name, "--one", name, "--folder", str(folder), "--dtype", dtype))
    medians = {name: sorted(found, key=lambda r: r["complete"])[runs // 2] for name, found in results.items()}
    mine = medians["ours"]
    rows = [
        [name, f"{r['complete'] / mine['complete']:.2f}×", f"{r['resident'] / mine['resident']:.2f}×",
         f"{r['resident'] / r['size']:.2f}", f"{r['private'] / r['size']:.2f}",
         f"{r['complete']:.2f} s", f"{r['seconds']:.2f} s", megabytes(r["resident"]), megabytes(r["private"])]
        for name, r in medians.items()
    ]  # fmt: skip
    state = "cold" if cold else "cached"
    return table(
        f"Loading {file.stat().st_size / 1e9:.2f} GB of bfloat16 as {dtype} (result {mine['size'] / 1e9:.2f} GB), "
        f"file {state}",
        ["way", "time / ours", "peak / ours", "peak / result", "private peak / result", "until usable", "call returns",
         "peak", "private peak"], rows,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="one precision only")
    parser.add_argument("--cold", action="store_true", help="with the file on the disk alone")
    parser.add_argument("--song", action="store_true", help="only the time to the first song")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.folder, getattr(torch, args.dtype))))
        return
    if args.folder:
        print(json.dumps(first_song(args.folder, SONG_SECONDS)))
        return
    folder = Path(tempfile.mkdtemp(prefix="acestep-loading-"))
    try:
        write_checkpoint(folder, args.gigabytes)
        if args.song:
            print(first_songs(folder, args.runs))
            return
        for dtype in (args.dtype,) if args.dtype else ("bfloat16", "float32"):
            print(compare(folder, dtype, args.runs, args.cold))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
