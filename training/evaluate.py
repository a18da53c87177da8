"""Measures a nano checkpoint on held-out pieces: `python -m training.evaluate --model acestep_core/nano --songs 100`.

Prints a Markdown table for the model's card. Beside every figure stands what the same ears find in the composer's own
renders (the ceiling of the measurement) and what chance or an untrained model gives.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch

from acestep_core.config import SAMPLE_RATE
from acestep_core.edit.edit import Edit
from acestep_core.edit.tasks import COVER
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.pipeline import generate, load_model
from acestep_core.planner.functions import codes as write_codes
from acestep_core.planner.load_planner import load_planner

from . import listen
from .composer import Piece, Wish, compose
from .examples import song_of
from .export import PLANNER_FOLDER
from .linear_start import variance_preserving
from .listener import INSTRUMENTS, STYLE_NAMES, Listener, train_listener
from .losses import mel_distance, si_sdr
from .pool import HELD_OUT
from .synth import render


@dataclass(frozen=True)
class Row:
    name: str
    model: str
    planned: str  # the model, given the planner's audio codes
    coded: str  # renders through the autoencoder: what a perfect model would be heard as
    renders: str
    floor: str  # chance, or the untrained model


def round_trip(vae: OobleckVAE, pieces: int, seconds: int = 8) -> tuple[float, float]:
    """Mean log-mel distance and SI-SDR in dB of held-out pieces through the autoencoder."""
    results = []
    for seed in range(HELD_OUT, HELD_OUT + pieces):
        wave = torch.from_numpy(render(compose(seed, Wish(seconds=seconds))))
        with torch.no_grad():
            made = vae.decode(vae.encode(wave[None]))[0]
        results.append((mel_distance(made, wave), si_sdr(made, wave)))
    mel, ratio = np.mean(results, axis=0)
    return float(mel), float(ratio)


Key = tuple[str, str]
SHARPS = {"Db": "C#", "D#": "Eb", "Gb": "F#", "G#": "Ab", "A#": "Bb"}  # to the spelling of `styles.TONICS`


def key_finder() -> tuple[str, Callable[[np.ndarray], Key]]:
    """Name and function (waveform `[2, samples]` to tonic and mode): essentia's where it is installed, else ours."""
    try:
        from essentia.standard import KeyExtractor
    except ImportError:
        return "our own key finder", listen.key
    extract = KeyExtractor(sampleRate=SAMPLE_RATE)

    def find(wave: np.ndarray) -> Key:
        tonic, mode, _ = extract(wave.mean(0).astype(np.float32))
        return SHARPS.get(tonic, tonic), mode

    return "essentia's KeyExtractor", find


def hear(
    piece: Piece, wave: np.ndarray, listener: Listener, find_key: Callable[[np.ndarray], Key] = listen.key
) -> dict[str, float]:
    """Which of the things asked for are heard, each 0 or 1 (instruments: the balanced share that is right)."""
    exact, metrical = listen.same_tempo(listen.tempo(wave), piece.bpm)
    key = find_key(wave)
    style, instruments = listener.hear(wave)
    asked = set(piece.instruments.values())
    return {
        "tempo within 4 %": exact,
        "… or half, double, a third of it": metrical,
        "key": key == (piece.tonic, piece.mode),
        "key or its relative": key in ((piece.tonic, piece.mode), listen.relative_key(piece.tonic, piece.mode)),
        "style": style == piece.style,
        "instruments asked that are heard": float(np.mean([name in instruments for name in asked])),
        "instruments heard that were asked": float(np.mean([name in asked for name in instruments]))
        if instruments
        else 0.0,
        "drums present or absent, as asked": ("drums" in instruments) == ("drums" in asked),
        "duration exact": wave.shape[-1] == piece.seconds * SAMPLE_RATE,
    }


def judge(
    pieces: list[Piece],
    play: Callable[[Piece], np.ndarray],
    listener: Listener,
    find_key: Callable[[np.ndarray], Key] = listen.key,
) -> dict[str, float]:
    """Share of pieces in which each thing is right."""
    heard = [hear(piece, play(piece), listener, find_key) for piece in pieces]
    return {name: float(np.mean([h[name] for h in heard])) for name in heard[0]}


def table(model_path: Path, songs: int, seconds: int) -> list[Row]:
    model = load_model(model_path, device="cpu")
    untrained = OobleckVAE(model.vae.config)
    variance_preserving(untrained, torch.Generator().manual_seed(0))
    rows = []
    (mel, ratio), (bad_mel, bad_ratio) = round_trip(model.vae, 12), round_trip(untrained.eval(), 12)
    rows.append(Row("VAE round trip: log-mel distance", f"{mel:.2f}", "–", "–", "0", f"{bad_mel:.2f}"))
    rows.append(Row("VAE round trip: SI-SDR", f"{ratio:.1f} dB", "–", "–", "∞", f"{bad_ratio:.1f} dB"))

    planner = load_planner(model_path / PLANNER_FOLDER, device="cpu")

    def play(piece: Piece) -> np.ndarray:
        return generate(model, song_of(piece), seed=piece.seed).waveform[0].numpy()

    def play_planned(piece: Piece) -> np.ndarray:
        codes = tuple(write_codes(planner, song_of(piece), [piece.seed]))
        edit = Edit(COVER, codes=codes)
        return generate(model, song_of(piece), seed=piece.seed, edit=edit).waveform[0].numpy()

    def play_coded(piece: Piece) -> np.ndarray:
        wave = torch.from_numpy(render(piece))[None]
        with torch.no_grad():
            return model.vae.decode(model.vae.encode(wave))[0].numpy()

    listener = train_listener()
    _, find_key = key_finder()
    asked = [compose(HELD_OUT + 1000 + i, Wish(seconds=seconds)) for i in range(songs)]
    sources = (play, play_planned, play_coded, render)
    ours, planned, coded, renders = (judge(asked, source, listener, find_key) for source in sources)
    others = judge(
        asked, lambda piece: render(compose(piece.seed + 500_000, Wish(seconds=seconds))), listener, find_key
    )
    rows += [Row(name, *(f"{heard[name]:.0%}" for heard in (ours, planned, coded, renders, others))) for name in ours]
    solos = [compose(HELD_OUT + 5000 + i, Wish(seconds=seconds, solo="piano")) for i in range(max(4, songs // 5))]
    quiet = [float("drums" not in listener.hear(play(piece))[1]) for piece in solos]
    truth = [float("drums" not in listener.hear(render(piece))[1]) for piece in solos]
    rows.append(
        Row("no drums when a solo piano is asked for", f"{np.mean(quiet):.0%}", "–", "–", f"{np.mean(truth):.0%}", "–")
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--songs", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the table there too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = [
        f"{args.songs} songs of {args.seconds} s; {len(STYLE_NAMES)} styles, {len(INSTRUMENTS)} instruments. "
        f"Keys are heard by {key_finder()[0]}.",
        "",
        "| measured | nano | with the planner's codes | renders by VAE | renders | untrained, or another piece |",
        "|---|---|---|---|---|---|",
        *("| " + " | ".join(astuple(row)) + " |" for row in table(args.model, args.songs, args.seconds)),
    ]
    text = "\n".join(lines) + "\n"
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    parser.exit(0, text)


if __name__ == "__main__":
    main()
