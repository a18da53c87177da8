"""Encode the pool with a trained autoencoder: `python -m training.latents --pool DIR --vae DIR --out DIR`.

The output is one float16 file a shard, with the pool's table of pieces. The command resumes. The encoder must not
change afterwards, so train the decoder further with `training.vae --freeze-encoder`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from acestep_core.config import HOP

from .loop import mixed
from .pool import Pool
from .vae import load_trained

log = logging.getLogger("acestep")
CHUNK, MARGIN = 125, 8  # frames of a chunk and of its overlap on each side (receptive field: 7)


@torch.no_grad()
def encode_pool(pool: Pool, vae_folder: Path, out: Path, device: str = "cpu", compiled: bool = True) -> None:
    """Write `shard_*.npy` (`[frames, 64]` float16) and `shard_*.json` (seed, first frame, frames)."""
    vae = load_trained(vae_folder).to(device)
    encode = torch.compile(vae.encode, dynamic=False) if compiled else vae.encode
    out.mkdir(parents=True, exist_ok=True)
    for shard in sorted(pool.shards):
        target = out / shard
        if target.exists():
            continue
        rows, table, position = [], [], 0
        for index, piece in enumerate(pool.pieces):
            if piece[0] != shard:
                continue
            seed, wave = pool.piece(index)
            with mixed(device):
                latents = encode_piece(encode, torch.from_numpy(wave).to(device)).cpu().numpy().astype(np.float16)
            table.append((seed, position, len(latents)))
            position += len(latents)
            rows.append(latents)
        target.with_suffix(".json").write_text(json.dumps(table))
        partial = target.with_name(target.name + ".part")
        with partial.open("wb") as file:
            np.save(file, np.concatenate(rows))
        os.replace(partial, target)
        log.info("%s: %d pieces, std %.2f", shard, len(table), float(np.concatenate(rows).astype(np.float32).std()))


def encode_piece(encode: Callable[[Tensor], Tensor], wave: Tensor) -> Tensor:
    """Encode `[2, samples]` as latents `[frames, 64]`, in chunks of one size, so that one compilation is enough.

    The piece is padded with silence.
    """
    frames = -(-wave.shape[1] // HOP)
    chunks = -(-frames // CHUNK)
    padded = F.pad(wave, (MARGIN * HOP, (chunks * CHUNK + MARGIN) * HOP - wave.shape[1]))
    parts = padded.unfold(1, (CHUNK + 2 * MARGIN) * HOP, CHUNK * HOP).transpose(0, 1)
    latents = [encode(part[None].contiguous())[0, MARGIN:-MARGIN].float() for part in parts]
    return torch.cat(latents)[:frames]


class LatentPool:
    """The encoded pieces of a folder and its subfolders in memory by length.

    `by_frames[frames]` lists (seed, latents `[frames, 64]`).
    """

    def __init__(self, folder: Path):
        self.by_frames: dict[int, list[tuple[int, np.ndarray]]] = {}
        for path in sorted(Path(folder).rglob("shard_*.npy")):
            rows = np.load(path)
            for seed, start, frames in json.loads(path.with_suffix(".json").read_text()):
                self.by_frames.setdefault(frames, []).append((seed, rows[start : start + frames]))
        if not self.by_frames:
            raise FileNotFoundError(f"latents: no shards in {folder}. Run `python -m training.latents` first.")

    @property
    def pieces(self) -> int:
        return sum(len(rows) for rows in self.by_frames.values())

    def batch(self, frames_in_batch: int, rng: np.random.Generator) -> tuple[list[int], Tensor]:
        """Draw pieces of one length, about `frames_in_batch` frames. Return seeds and latents `[B, T, 64]`."""
        lengths = list(self.by_frames)
        weights = np.array([length * len(self.by_frames[length]) for length in lengths], float)
        length = lengths[int(rng.choice(len(lengths), p=weights / weights.sum()))]
        rows = self.by_frames[length]
        count = min(len(rows), max(1, round(frames_in_batch / length)))
        chosen = [rows[i] for i in rng.choice(len(rows), count, replace=False)]
        return [seed for seed, _ in chosen], torch.from_numpy(np.stack([x for _, x in chosen]).astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    encode_pool(Pool(args.pool), args.vae, args.out, args.device, not args.no_compile)


if __name__ == "__main__":
    main()
