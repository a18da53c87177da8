"""Find the cross-attention heads that follow the lyrics:
`python -m training.lyric_heads --model acestep_core/nano --pieces 50`.

The composer's score says when each line is sung. Every head aligns the lyrics of held-out pieces as `lyric_times` does,
and is ranked by the starts of the lines. The best heads are then joined one by one. The other rows of the table have
the lines spread evenly over the piece, and the same heads on the model's own songs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acestep_core.config import FRAME_RATE
from acestep_core.load import Model
from acestep_core.lyrics.capture import lyric_attention, lyric_heads
from acestep_core.lyrics.scores import score_lyrics
from acestep_core.lyrics.timing import sung_tokens, time_lyrics
from acestep_core.pipeline import encode, encode_audio, encode_conditions, load_model, sample
from acestep_core.sampling.context import context_latents, frames_to_run
from acestep_core.text.lyric_tokens import LyricTokens

from .composer import compose
from .examples import song_of
from .piece import Piece
from .pool import HELD_OUT, sung_seeds
from .singing import line_starts
from .synth import render

FIRST_SEED = HELD_OUT + 20_000
NEAR, FAR = 0.3, 1.0  # seconds
LARGEST_SET = 4

Head = tuple[int, int]  # layer and head


@dataclass(frozen=True)
class Take:
    """A recording or a song with its lyrics. attention: of all heads, in the order of `all_heads`, [H, N, P]."""

    piece: Piece
    tokens: LyricTokens
    attention: Tensor
    seconds: float


@dataclass(frozen=True)
class Shares:
    """Shares of the line starts within `NEAR` and `FAR` seconds, and the median error in seconds."""

    near: float
    far: float
    median: float

    @classmethod
    def of(cls, errors: Sequence[float]) -> Shares:
        found = np.array(errors)
        return cls(float((found <= NEAR).mean()), float((found <= FAR).mean()), float(np.median(found)))


def all_heads(model: Model) -> list[Head]:
    config = model.network.config
    return [(layer, head) for layer in range(config.num_hidden_layers) for head in range(config.num_attention_heads)]


def capture(model: Model, piece: Piece, latents: Tensor) -> Take:
    """Return the attention of all heads to the lyrics of a piece over latents [1, T, 64]."""
    network, text = model.network, encode(model, song_of(piece))
    heads = {layer: tuple(range(network.config.num_attention_heads)) for layer, _ in all_heads(model)}
    with torch.inference_mode():
        (condition,) = encode_conditions(network, [text], "cpu")
        context = context_latents(network, None, 1, frames_to_run(latents.shape[1]), torch.device("cpu"))
        attention = lyric_attention(network, heads, text.lyric_tokens, latents, context, condition)
    return Take(piece, text.lyric_tokens, attention, latents.shape[1] / FRAME_RATE)


def held_out(count: int, first_seed: int = FIRST_SEED) -> list[Piece]:
    """Return sung pieces that no stage of the training has."""
    return [compose(seed) for seed in sung_seeds(first_seed, count)]


def recordings(model: Model, pieces: Sequence[Piece]) -> Iterator[Take]:
    """Yield the renders of the pieces."""
    for piece in pieces:
        yield capture(model, piece, encode_audio(model, torch.from_numpy(render(piece))[None], 48_000))


def own_song(model: Model, piece: Piece, lyrics: str | None = None) -> Tensor:
    """Return latents of the model's song for the request of a piece. lyrics: others than the piece's."""
    song = song_of(piece) if lyrics is None else replace(song_of(piece), lyrics=lyrics)
    return sample(model, encode(model, song), seconds=piece.seconds, seeds=[piece.seed])


def found_starts(take: Take, rows: Sequence[int], patch_seconds: float) -> list[float]:
    """Return the start of each line by the heads in `rows` of the attention."""
    times = time_lyrics(take.tokens, take.attention[list(rows)], take.seconds, patch_seconds)
    return [line.start for line in times.lines]


def even_starts(take: Take, lines: int) -> list[float]:
    """Return starts that are spread evenly over the piece."""
    return [i * take.seconds / lines for i in range(lines)]


def start_errors(takes: Sequence[Take], starts: Callable[[Take], Sequence[float]]) -> list[float]:
    """Return how far the start of each line is from the score, in seconds."""
    errors = []
    for take in takes:
        found = starts(take)
        errors += [abs(found[line] - start) for line, start in line_starts(take.piece).items()]
    return errors


def even_errors(takes: Sequence[Take]) -> list[float]:
    """Return the errors of lines that are spread evenly."""
    errors = []
    for take in takes:
        sung = line_starts(take.piece)
        lines = max(sung) + 1
        errors += [abs(even_starts(take, lines)[line] - start) for line, start in sung.items()]
    return errors


def rank(takes: Sequence[Take], heads: Sequence[Head], patch_seconds: float) -> list[tuple[tuple[Head, ...], Shares]]:
    """Return single heads, the best first, then sets that grow by the head that helps most."""

    def shares(rows: Sequence[int]) -> Shares:
        return Shares.of(start_errors(takes, lambda take: found_starts(take, rows, patch_seconds)))

    def quality(found: Shares) -> float:
        return found.near + found.far

    singles = sorted(((row,) for row in range(len(heads))), key=lambda rows: -quality(shares(rows)))
    ranked = [(rows, shares(rows)) for rows in singles]
    candidates, chosen = [rows[0] for rows in singles[:8]], singles[0]
    for _ in range(LARGEST_SET - 1):
        larger = [(*chosen, row) for row in candidates if row not in chosen]
        chosen = max(larger, key=lambda rows: quality(shares(rows)))
        ranked.append((chosen, shares(chosen)))
    return [(tuple(heads[row] for row in rows), found) for rows, found in ranked]


def score_pairs(model: Model, pieces: Sequence[Piece], rows: Sequence[int]) -> list[tuple[float, float]]:
    """Return the scores of two songs by the lyrics of a piece. The second one is sung with other lyrics.

    Both have the same caption, metadata and seed. The other lyrics are those of the next piece whose lyrics differ.
    """
    scores = []
    for index, piece in enumerate(pieces):
        later = [*pieces[index + 1 :], *pieces[:index]]
        other = next(each.lyrics for each in later if each.lyrics != piece.lyrics)
        own, foreign = (capture(model, piece, own_song(model, piece, lyrics)) for lyrics in (piece.lyrics, other))
        scores.append((_score(own, rows), _score(foreign, rows)))
    return scores


def _score(take: Take, rows: Sequence[int]) -> float:
    return score_lyrics(take.attention[list(rows)], sung_tokens(take.tokens)).value


def config_value(heads: Sequence[Head]) -> dict[str, list[int]]:
    """Return heads as `lyric_alignment_layers_config` of a config.json."""
    layers = sorted({layer for layer, _ in heads})
    return {str(layer): sorted(head for own, head in heads if own == layer) for layer in layers}


def rows_of(listed: Mapping[int, Sequence[int]], heads: Sequence[Head]) -> list[int]:
    """Return the rows of listed heads."""
    return [row for row, (layer, head) in enumerate(heads) if head in listed.get(layer, ())]


def table_row(name: str, found: Shares) -> str:
    return f"| {name} | {found.near:.0%} | {found.far:.0%} | {found.median:.2f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--songs", type=int, default=0, help="also that many of the model's own songs")
    parser.add_argument("--pairs", type=int, default=0, help="also compare songs of the lyrics with songs of others")
    parser.add_argument("--listed", action="store_true", help="only the heads that the model's config.json lists")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.model, device="cpu", dtype="float32")
    heads, patch_seconds = all_heads(model), model.network.config.patch_size / FRAME_RATE
    pieces = held_out(options.pieces, options.first_seed)
    takes = list(recordings(model, pieces))
    lines = len(start_errors(takes, lambda take: found_starts(take, [0], patch_seconds)))
    print(f"{len(takes)} pieces, {lines} lines\n")
    print(f"| heads (layer.head) | line starts within {NEAR} s | within {FAR:g} s | median error |\n|---|---|---|---|")
    print(table_row("spread evenly", Shares.of(even_errors(takes))), flush=True)
    if options.listed:
        rows = rows_of(lyric_heads(model.network.config), heads)
        errors = start_errors(takes, lambda take: found_starts(take, rows, patch_seconds))
        print(table_row("listed", Shares.of(errors)))
    else:
        ranked = rank(takes, heads, patch_seconds)
        for chosen, found in ranked:
            print(table_row(" ".join(f"{layer}.{head}" for layer, head in chosen), found))
        best = max(ranked, key=lambda entry: entry[1].near + entry[1].far)[0]
        print(f"\nlyric_alignment_layers_config: {config_value(best)}\n")
        rows = [heads.index(head) for head in best]
    if options.songs:
        songs = [capture(model, piece, own_song(model, piece)) for piece in pieces[: options.songs]]
        errors = start_errors(songs, lambda take: found_starts(take, rows, patch_seconds))
        print(table_row("own songs", Shares.of(errors)))
        print(table_row("own songs, spread evenly", Shares.of(even_errors(songs))), flush=True)
    if options.pairs:
        scores = score_pairs(model, pieces[: options.pairs], rows)
        higher = np.mean([own > other for own, other in scores])
        print(f"\n{higher:.0%} of {len(scores)} songs score above a song of other lyrics")


if __name__ == "__main__":
    main()
