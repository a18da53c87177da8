"""Generate two takes of each of two songs at once, and print the seed of every file.

Usage: python batch.py SECONDS FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from acestep_core import Metadata, Song, generate, load_model, write_audio

seconds, folder = float(sys.argv[1]), Path(sys.argv[2])

model = load_model("nano")
songs = [Song(caption, metadata=Metadata(duration=seconds)) for caption in ("slow jazz trio", "fast techno")]
result = generate(model, songs, batch=2, seed=1)
for item, waveform in enumerate(result.waveform):
    path = folder / f"{item + 1}.flac"
    write_audio(path, waveform, settings=result.recipe(item).to_dict())
    print(f"{path}: {result.songs[item].caption}, seed {result.seeds[item]}")
