"""Render a pool of pieces to disk: `python -m training.pool --out DIR --pieces 600`.

`--sung` renders only pieces with a voice.

Shards are int16 stereo and memory-mapped when read, so that training spends no time on synthesis. Each shard is written
atomically, so the command resumes where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
from itertools import islice
from multiprocessing import Pool as Workers
from pathlib import Path

import numpy as np
import torch

from .composer import compose
from .instruments import RATE
from .piece import Constraints
from .synth import render

log = logging.getLogger("acestep")

PIECES_PER_SHARD = 50
SUNG_RANGE = 1000  # seeds of a shard of sung pieces, of which a fifth are sung
HELD_OUT = 1_000_000  # the first seed that is held out from training


def sung_seeds(first_seed: int, count: int) -> list[int]:
    """Return the first seeds from `first_seed` on whose pieces have a voice."""
    return list(islice((seed for seed in itertools.count(first_seed) if compose(seed).language != "unknown"), count))


def make_shard(
    folder: Path, index: int, first_seed: int, constraints: Constraints | None = None, sung: bool = False
) -> None:
    """Write `shard_{index}.npy` (`[2, samples]` int16) and its table of (seed, first sample, samples)."""
    target = folder / f"shard_{index:04d}.npy"
    if target.exists():
        return
    waves, table, position = [], [], 0
    if sung:
        seeds = sung_seeds(first_seed + index * SUNG_RANGE, PIECES_PER_SHARD)
    else:
        seeds = list(range(first_seed + index * PIECES_PER_SHARD, first_seed + (index + 1) * PIECES_PER_SHARD))
    for seed in seeds:
        wave = render(compose(seed, constraints))
        waves.append(np.round(wave * 32767).astype(np.int16))
        table.append((seed, position, wave.shape[1]))
        position += wave.shape[1]
    target.with_suffix(".json").write_text(json.dumps(table))
    partial = target.with_name(target.name + ".part")
    with partial.open("wb") as file:
        np.save(file, np.concatenate(waves, axis=1))
    os.replace(partial, target)


class Pool:
    """The shards in a folder. `refresh` adds new ones."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.shards: dict[str, np.ndarray] = {}
        self.pieces: list[tuple[str, int, int, int]] = []  # shard, seed, first sample, samples
        self.refresh()

    def refresh(self) -> None:
        for path in sorted(self.folder.glob("shard_*.npy")):
            if path.name not in self.shards:
                self.shards[path.name] = np.load(path, mmap_mode="r")
                self.pieces += [(path.name, *row) for row in json.loads(path.with_suffix(".json").read_text())]

    @property
    def seconds(self) -> float:
        return sum(row[3] for row in self.pieces) / RATE

    def crops(self, batch: int, samples: int, rng: np.random.Generator) -> torch.Tensor:
        """Return random crops, `[batch, 2, samples]` float32.

        The gain is −6 to +2 dB, and half of the crops have swapped channels.
        """
        out = np.empty((batch, 2, samples), np.float32)
        lengths = np.array([row[3] for row in self.pieces], float)
        for row in range(batch):
            shard, _, start, length = self.pieces[int(rng.choice(len(lengths), p=lengths / lengths.sum()))]
            at = start + int(rng.integers(0, max(1, length - samples)))
            crop = self.shards[shard][:, at : at + samples].astype(np.float32) / 32767
            crop = crop[:: int(rng.choice([-1, 1]))] * 10 ** (rng.uniform(-6, 2) / 20)
            out[row] = np.pad(crop, ((0, 0), (0, samples - crop.shape[1])))
        return torch.from_numpy(out)

    def piece(self, index: int) -> tuple[int, np.ndarray]:
        """Return the seed and the sound `[2, samples]` float32 of one piece."""
        shard, seed, start, length = self.pieces[index]
        return seed, self.shards[shard][:, start : start + length].astype(np.float32) / 32767


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=600)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sung", action="store_true", help="only pieces with a voice")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = [(args.out, i, args.first_seed, None, args.sung) for i in range(args.pieces // PIECES_PER_SHARD)]
    if args.processes == 1:
        for job in jobs:
            make_shard(*job)
            log.info("Rendered shard %d of %d", job[1] + 1, len(jobs))
    else:
        with Workers(args.processes) as workers:
            workers.starmap(make_shard, jobs, chunksize=1)


if __name__ == "__main__":
    main()
