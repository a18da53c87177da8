"""Generate a song, then regenerate its second half with another caption.

Usage: python edit.py SECONDS FILE
"""

from __future__ import annotations

import sys

from acestep_core import Edit, Metadata, Song, generate, load_model, write_audio

seconds, path = float(sys.argv[1]), sys.argv[2]

model = load_model("nano")
first = generate(model, Song("warm lo-fi piano", metadata=Metadata(duration=seconds)), seed=7)

edit = Edit("repaint", source=first.latents, waveform=first.waveform, regions=[(seconds / 2, None)])
second = generate(model, Song("bright synth pop with drums"), edit=edit, seed=8)  # as long as its source
write_audio(path, second.waveform[0])
