"""The tasks of the diffusion model, as data. To add a task, add its row to `TASKS`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ..config import ModelConfig
from ..errors import RequestError

ALL_VARIANTS = ("turbo", "sft", "base")
STEM_VARIANTS = ("base", "sft")

# The trained names. The instruction has them in capitals.
TRACKS = (
    "woodwinds", "brass", "fx", "synth", "strings", "percussion", "keyboard", "guitar", "bass", "drums",
    "backing_vocals", "vocals",
)  # fmt: skip


class SourceContext(Enum):
    """The part of the source that the context latents contain."""

    NONE = "nothing: silence"
    CODES = "latents of the audio codes: the structure without the sound"
    WHOLE = "the whole source"
    AROUND = "the source outside of the regions, silence inside"


class Region(Enum):
    """When a task is limited to regions of the song."""

    NEVER = "never"
    OPTIONAL = "optional"
    ALWAYS = "always"


@dataclass(frozen=True)
class Task:
    """One trained task.

    instruction: the trained first sentence of the caption prompt, byte for byte.
    source: the part of the source in the context.
    region: when the task is limited to regions.
    track_instruction: the sentence with `{tracks}` in it, for a task on named tracks.
    max_tracks: the largest number of tracks.
    variants: the model families that were trained for the task.
    """

    name: str
    instruction: str
    source: SourceContext = SourceContext.NONE
    region: Region = Region.NEVER
    track_instruction: str = ""
    max_tracks: int = 0
    variants: tuple[str, ...] = ALL_VARIANTS

    def __str__(self) -> str:
        return self.name


TEXT2MUSIC = Task("text2music", "Fill the audio semantic mask based on the given conditions:")

# Also the task of a song from text with audio codes: the codes replace the source.
COVER = Task("cover", "Generate audio semantic tokens based on the given conditions:", SourceContext.CODES)

# Also the task that extends a song. The added part of the source is silence.
REPAINT = Task("repaint", "Repaint the mask area based on the given conditions:", SourceContext.AROUND, Region.ALWAYS)

EXTRACT = Task(
    "extract",
    "Extract the track from the audio:",
    SourceContext.WHOLE,
    track_instruction="Extract the {tracks} track from the audio:",
    max_tracks=1,
    variants=STEM_VARIANTS,
)
LEGO = Task(
    "lego",
    "Generate the track based on the audio context:",
    SourceContext.WHOLE,
    Region.OPTIONAL,
    track_instruction="Generate the {tracks} track based on the audio context:",
    max_tracks=1,
    variants=STEM_VARIANTS,
)
COMPLETE = Task(
    "complete",
    "Complete the input track:",
    SourceContext.WHOLE,
    track_instruction="Complete the input track with {tracks}:",
    max_tracks=len(TRACKS),
    variants=STEM_VARIANTS,
)

TASKS: dict[str, Task] = {task.name: task for task in (TEXT2MUSIC, COVER, REPAINT, EXTRACT, LEGO, COMPLETE)}


def find_task(task: Task | str) -> Task:
    """Return the task of that name. Raises RequestError for an unknown name."""
    if isinstance(task, Task):
        return task
    if not isinstance(task, str) or task not in TASKS:
        raise RequestError(f"task: unknown task {task!r}; allowed are {', '.join(TASKS)}")
    return TASKS[task]


def instruction(task: Task, tracks: Sequence[str] = ()) -> str:
    """Return the trained instruction of a task. Raises RequestError for unknown tracks or too many."""
    if isinstance(tracks, str):
        tracks = (tracks,)
    if not isinstance(tracks, Sequence):
        raise RequestError(f"tracks must be a list of names, got {tracks!r:.80}")
    unknown = [track for track in tracks if track not in TRACKS]
    if unknown:
        raise RequestError(f"tracks: unknown track {unknown[0]!r}; allowed are {', '.join(TRACKS)}")
    if len(tracks) > task.max_tracks:
        raise RequestError(f"tracks: {task.name} takes at most {task.max_tracks}, got {', '.join(tracks)}")
    if not tracks:
        return task.instruction
    return task.track_instruction.format(tracks=" | ".join(track.upper() for track in tracks))


def model_family(config: ModelConfig) -> str:
    """Return the family of a model, one of ALL_VARIANTS."""
    if config.is_turbo:
        return "turbo"
    return "sft" if "sft" in config.model_version else "base"


def untrained_warning(task: Task, config: ModelConfig) -> str | None:
    """Return a warning if the model was not trained for the task, else None."""
    family = model_family(config)
    if family in task.variants:
        return None
    return (
        f"task: this {family} model was not trained for {task.name}; load a {' or '.join(task.variants)} model (2B or "
        "XL) instead"
    )
