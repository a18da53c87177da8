"""The command that draws a song: `acestep picture`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..files import check_output_path
from .parsers import picture_parser
from .terminal import Terminal, printable


def draw_picture(arguments: Sequence[str], terminal: Terminal) -> None:
    """Write the waveform or the spectrogram of a song as a PNG file, and print its name."""
    options = picture_parser().parse_args(arguments)
    from ..audio import read_audio
    from ..audio.picture import draw_song, write_png
    from ..config import SAMPLE_RATE

    path = Path(options.file).with_suffix(".png") if options.output is None else Path(options.output)
    check_output_path(path, ".png")
    waveform = read_audio(Path(options.file))[0]
    write_png(path, draw_song(waveform, SAMPLE_RATE, options.kind, options.width, options.height))
    print(printable(str(path)))
