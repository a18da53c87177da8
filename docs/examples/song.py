"""Generate a song from a caption and save it with its settings.

Usage: python song.py SECONDS FILE
"""

from __future__ import annotations

import sys

from acestep_core import Metadata, Song, generate, load_model, write_audio

seconds, path = float(sys.argv[1]), sys.argv[2]

model = load_model("nano")  # "turbo", "base" or "sft" after `acestep download`
song = Song("warm lo-fi piano over a slow drum loop", metadata=Metadata(bpm=80, key="A minor", duration=seconds))
result = generate(model, song, seed=7)
write_audio(path, result.waveform[0], settings=result.recipe().to_dict())
