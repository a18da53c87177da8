"""Evaluate a nano checkpoint on held-out pieces: `python -m training.evaluate --model acestep_core/nano --songs 100`.

The output is a Markdown table for the model card. Each row also has the result of the composer's own renders, which is
the ceiling of the measurement, and the result of chance or an untrained model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from acestep_core.config import SAMPLE_RATE
from acestep_core.edit.edit import Edit
from acestep_core.edit.tasks import COVER
from acestep_core.models.oobleck import OobleckVAE
from acestep_core.pipeline import generate, load_model
from acestep_core.planner.load_planner import load_planner
from acestep_core.planner.planning import plan_codes
from acestep_core.song.song import Song

from . import analysis
from .classifier import INSTRUMENTS, STYLE_NAMES, SoundClassifier, train_classifier
from .composer import compose
from .examples import song_of
from .export import PLANNER_FOLDER
from .initialization import init_autoencoder
from .losses import mel_distance, si_sdr
from .piece import Constraints, Piece
from .pool import HELD_OUT
from .synth import render

# In other words than the composer's, and than those of `training.wording`.
FREE_CAPTIONS = (
    "driving home through the rain after a long shift",
    "90s boom bap with dusty samples and a lazy drummer",
    "royal procession, timpani and fanfares",
    "music box in an abandoned toy shop",
    "festival main stage drop, huge and bright",
    "two guitars on a porch in July",
    "boss fight in a retro video game",
    "a grandmother remembers the sea",
    "elevator muzak for a spaceship",
    "protest march with chanting crowd and brass band",
)


@dataclass(frozen=True)
class Row:
    name: str
    model: str
    planned: str  # the model with the planner's audio codes
    decoded: str  # renders through the autoencoder, the ceiling of a perfect diffusion model
    renders: str
    chance: str  # another piece, or the untrained model


def round_trip(vae: OobleckVAE, pieces: int, seconds: int = 8) -> tuple[float, float]:
    """Return the mean log-mel distance and SI-SDR in dB of held-out pieces through the autoencoder."""
    results = []
    for seed in range(HELD_OUT, HELD_OUT + pieces):
        wave = torch.from_numpy(render(compose(seed, Constraints(seconds=seconds))))
        with torch.no_grad():
            decoded = vae.decode(vae.encode(wave[None]))[0]
        results.append((mel_distance(decoded, wave), si_sdr(decoded, wave)))
    mel, ratio = np.mean(results, axis=0)
    return float(mel), float(ratio)


def score(piece: Piece, wave: np.ndarray, classifier: SoundClassifier) -> dict[str, float]:
    """Compare the sound with the request. Each result is 0 or 1, or the share of instruments that match."""
    exact, metrical = analysis.same_tempo(analysis.tempo(wave), piece.bpm)
    key = analysis.key(wave)
    style, instruments = classifier.classify(wave)
    requested = set(piece.instruments.values())
    return {
        "tempo within 4 %": exact,
        "… or half, double, a third of it": metrical,
        "key": key == (piece.tonic, piece.mode),
        "key or its relative": key in ((piece.tonic, piece.mode), analysis.relative_key(piece.tonic, piece.mode)),
        "style": style == piece.style,
        "requested instruments that are present": float(np.mean([name in instruments for name in requested])),
        "present instruments that were requested": float(np.mean([name in requested for name in instruments]))
        if instruments
        else 0.0,
        "drums present or absent, as requested": ("drums" in instruments) == ("drums" in requested),
        "duration exact": wave.shape[-1] == piece.seconds * SAMPLE_RATE,
    }


def mean_scores(
    pieces: list[Piece], synthesize: Callable[[Piece], np.ndarray], classifier: SoundClassifier
) -> dict[str, float]:
    """Return the mean of each score over the pieces."""
    scores = [score(piece, synthesize(piece), classifier) for piece in pieces]
    return {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}


def free_wording(synthesize: Callable[[Song, int], np.ndarray], songs: int) -> dict[str, float]:
    """Return how often songs of free captions have the tempo and the key of their metadata. Half of them are minor."""
    found: dict[str, list[bool]] = {}
    for i in range(songs):
        mode = ("major", "minor")[i % 2]
        piece = compose(HELD_OUT + 7000 + i, Constraints(seconds=15, mode=mode, sung=False))
        song = replace(song_of(piece), caption=FREE_CAPTIONS[i // 2 % len(FREE_CAPTIONS)])
        wave = synthesize(song, piece.seed)
        exact, metrical = analysis.same_tempo(analysis.tempo(wave), piece.bpm)
        results = {"tempo within 4 %": exact, "tempo, or half, double, a third of it": metrical}
        results[f"{mode} key"] = analysis.key(wave) == (piece.tonic, piece.mode)
        for name, result in results.items():
            found.setdefault(f"free wording: {name}", []).append(result)
    return {name: float(np.mean(results)) for name, results in found.items()}


def table(model_path: Path, songs: int, seconds: int) -> list[Row]:
    model = load_model(model_path, device="cpu")
    untrained = OobleckVAE(model.vae.config)
    init_autoencoder(untrained, torch.Generator().manual_seed(0))
    rows = []
    (mel, ratio), (bad_mel, bad_ratio) = round_trip(model.vae, 12), round_trip(untrained.eval(), 12)
    rows.append(Row("VAE round trip: log-mel distance", f"{mel:.2f}", "–", "–", "0", f"{bad_mel:.2f}"))
    rows.append(Row("VAE round trip: SI-SDR", f"{ratio:.1f} dB", "–", "–", "∞", f"{bad_ratio:.1f} dB"))

    planner = load_planner(model_path / PLANNER_FOLDER, device="cpu")

    def generated_from(song: Song, seed: int) -> np.ndarray:
        return generate(model, song, seed=seed).waveform[0].numpy()

    def generated(piece: Piece) -> np.ndarray:
        return generated_from(song_of(piece), piece.seed)

    def planned(piece: Piece) -> np.ndarray:
        codes = tuple(plan_codes(planner, song_of(piece), [piece.seed]))
        edit = Edit(COVER, codes=codes)
        return generate(model, song_of(piece), seed=piece.seed, edit=edit).waveform[0].numpy()

    def decoded(piece: Piece) -> np.ndarray:
        wave = torch.from_numpy(render(piece))[None]
        with torch.no_grad():
            return model.vae.decode(model.vae.encode(wave))[0].numpy()

    def another(piece: Piece) -> np.ndarray:
        return render(compose(piece.seed + 500_000, Constraints(seconds=seconds)))

    classifier = train_classifier()
    requests = [compose(HELD_OUT + 1000 + i, Constraints(seconds=seconds)) for i in range(songs)]
    columns = [mean_scores(requests, each, classifier) for each in (generated, planned, decoded, render, another)]
    rows += [Row(name, *(f"{column[name]:.0%}" for column in columns)) for name in columns[0]]
    solo = Constraints(seconds=seconds, solo="piano")
    solos = [compose(HELD_OUT + 5000 + i, solo) for i in range(max(4, songs // 5))]
    drumless, ceiling = (
        np.mean(["drums" not in classifier.classify(each(piece))[1] for piece in solos]) for each in (generated, render)
    )
    rows += [
        Row(name, f"{share:.0%}", "–", "–", "–", "–") for name, share in free_wording(generated_from, songs).items()
    ]
    rows.append(Row("no drums in a solo piano", f"{drumless:.0%}", "–", "–", f"{ceiling:.0%}", "–"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--songs", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = [
        f"{args.songs} songs of {args.seconds} s; {len(STYLE_NAMES)} styles, {len(INSTRUMENTS)} instruments. "
        "Keys are estimated by `training/analysis.py`.",
        "",
        "| measured | nano | nano with planned codes | renders through VAE | renders | untrained, or another piece |",
        "|---|---|---|---|---|---|",
        *("| " + " | ".join(astuple(row)) + " |" for row in table(args.model, args.songs, args.seconds)),
    ]
    text = "\n".join(lines) + "\n"
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    parser.exit(0, text)


if __name__ == "__main__":
    main()
