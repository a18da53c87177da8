"""Render workflows/ACE-Step example.ogg, the recording that the edit templates load, with the training composer.

Usage: python -m tools.example_recording
"""

from __future__ import annotations

from pathlib import Path

import soundfile

from acestep_core.config import SAMPLE_RATE
from training.composer import compose
from training.piece import Constraints, Piece
from training.synth import render

RECORDING = Path(__file__).resolve().parents[1] / "workflows" / "ACE-Step example.ogg"
SEED = 5
REQUEST = Constraints(style="pop", bpm=100, tonic="G", mode="major", meter=4, seconds=12, sung=False)


def example_piece() -> Piece:
    return compose(SEED, REQUEST)


def main() -> None:
    waveform = render(example_piece())
    soundfile.write(RECORDING, waveform.T, SAMPLE_RATE, format="OGG", subtype="VORBIS", compression_level=0.6)


if __name__ == "__main__":
    main()
