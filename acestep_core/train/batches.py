"""The order of songs and crops in training, as a function of the seed and the number of the batch."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ..config import MIN_FRAMES

BUCKET = 250  # frames; longer batches of whole songs are cut to a multiple


@dataclass(frozen=True)
class Crop:
    """Frames `start` to `start + frames` of a song, and a generator for its noise, time and dropout."""

    song: int
    start: int
    frames: int
    rng: random.Random


class BatchOrder:
    """Batches of crops of one length each. Each epoch has every song once, in another order.

    lengths: frames of each song. crop: frames of a crop, None for whole songs.
    """

    def __init__(self, lengths: Sequence[int], crop: int | None, batch: int, seed: int):
        self._lengths, self._batch, self._seed = lengths, batch, seed
        self._frames = [self._cropped(length, crop) for length in lengths]
        buckets: dict[int, list[int]] = defaultdict(list)
        for song, frames in enumerate(self._frames):
            buckets[frames].append(song)
        self._buckets = list(buckets.values())
        self.batches_per_epoch = sum(-(-len(bucket) // batch) for bucket in self._buckets)

    def _cropped(self, length: int, crop: int | None) -> int:
        frames = length if crop is None else min(length, crop)
        if self._batch == 1 or frames == crop:
            return frames
        return frames // BUCKET * BUCKET or max(MIN_FRAMES, frames // MIN_FRAMES * MIN_FRAMES)

    def __getitem__(self, number: int) -> list[Crop]:
        """Return the crops of a batch, whose number counts from 0 over all epochs."""
        epoch, place = divmod(number, self.batches_per_epoch)
        rng = random.Random(f"{self._seed} epoch {epoch}")
        batches = []
        for bucket in self._buckets:
            songs = rng.sample(bucket, len(bucket))
            batches += [songs[i : i + self._batch] for i in range(0, len(songs), self._batch)]
        rng.shuffle(batches)
        return [self._crop(number, slot, song) for slot, song in enumerate(batches[place])]

    def _crop(self, number: int, slot: int, song: int) -> Crop:
        rng = random.Random(f"{self._seed} batch {number} {slot}")
        frames = self._frames[song]
        return Crop(song, rng.randint(0, max(0, self._lengths[song] - frames)), frames, rng)
