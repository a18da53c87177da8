"""Keep the takes of a song that follow its lyrics best: `--best-of N`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from .inputs import check_counts
from .terminal import Terminal

if TYPE_CHECKING:
    from ..callbacks import Callbacks
    from ..edit.edit import Edit
    from ..pipeline import Model, Result
    from ..recipe import Recipe

log = logging.getLogger("acestep")

Options = Mapping[str, Any]


def takes_of(options: Options, recipes: Sequence[Recipe]) -> int:
    """Return the number of takes to generate of each song. Raises RequestError."""
    check_counts(options, "batch", "best_of")
    batch, takes = options.get("batch", 1), options.get("best_of", 1)
    if takes == 1:
        return batch
    if takes < batch:
        raise RequestError(f"--best-of must be at least --batch, {batch}, got {takes}")
    for recipe in recipes:
        if recipe.song.instrumental:
            raise RequestError(
                "--best-of: the song has no lyrics that its takes can be compared by; leave the option out. "
                "`acestep plan --best-of` compares audio codes"
            )
    return takes


def check_heads(model: Model) -> None:
    """Raise RequestError before the takes are generated if no lyric times can be found in this model."""
    from ..lyrics.capture import lyric_heads

    if model.network is not None:
        lyric_heads(model.network.config)


def keep_best(
    model: Model, result: Result, keep: int, edit: Edit | None, callbacks: Callbacks, terminal: Terminal | None
) -> tuple[Result, list[float | None]]:
    """Return the best takes of one song, the best first, and their scores. Log the scores of all.

    terminal: shows the scores as well.
    """
    from ..lyrics.capture import lyric_times
    from ..lyrics.scores import rank_takes
    from ..pipeline import encode

    task: dict[str, Any] = {}
    if edit is not None:
        task = {"task": edit.task_of(0), "tracks": edit.tracks, "explicit_mask": not edit.auto_mask}
    text = encode(model, result.songs[0], **task, callbacks=callbacks)
    times = lyric_times(model, result.latents, text, edit=edit, callbacks=callbacks)
    ranking = rank_takes([each.score for each in times])
    for note in ranking.notes:
        callbacks.warn(note)
    values = [None if each.score is None else each.score.value for each in times]
    line = f"best of {len(values)}: " + ", ".join(
        f"seed {result.seeds[i]}" + ("" if values[i] is None else f" {values[i]:.3f}") for i in ranking.order
    )
    log.info(line)
    if terminal is not None:
        terminal.line(line)
    best = list(ranking.order[:keep])
    several_codes = len(result.codes) == len(values)
    chosen = replace(
        result,
        waveform=result.waveform[best],
        latents=result.latents[best],
        songs=tuple(result.songs[i] for i in best),
        seeds=tuple(result.seeds[i] for i in best),
        codes=tuple(result.codes[i] for i in best) if several_codes else result.codes,
    )
    return chosen, [values[i] for i in best]
