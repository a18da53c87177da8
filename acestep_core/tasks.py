"""The tasks of the diffusion model, as data: one row each."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import RequestError

ALL_VARIANTS = ("turbo", "sft", "base")


@dataclass(frozen=True)
class Task:
    """One thing the model was trained to do.

    instruction: the trained sentence that opens the caption prompt, byte for byte.
    needs_source: the task works on source audio, or on audio codes that stand for it.
    variants: the model families trained for it; others are worth a warning, not an error.
    """

    name: str
    instruction: str
    needs_source: bool
    variants: tuple[str, ...] = ALL_VARIANTS


TEXT2MUSIC = Task("text2music", "Fill the audio semantic mask based on the given conditions:", needs_source=False)

# Also the task of a song from text once audio codes are given: the codes take the place of the source.
COVER = Task("cover", "Generate audio semantic tokens based on the given conditions:", needs_source=True)

TASKS: dict[str, Task] = {task.name: task for task in (TEXT2MUSIC, COVER)}


def find_task(name: str) -> Task:
    """The task of that name; RequestError if there is none."""
    if name not in TASKS:
        raise RequestError(f"unknown task {name!r}; allowed are {', '.join(TASKS)}")
    return TASKS[name]
