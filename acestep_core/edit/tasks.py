"""The tasks of the diffusion model, as data: one row each. Adding a task means adding its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ..config import ModelConfig
from ..errors import RequestError

ALL_VARIANTS = ("turbo", "sft", "base")
STEM_VARIANTS = ("base", "sft")

# The names the model was trained on; the instruction has them in capitals.
TRACKS = (
    "woodwinds",
    "brass",
    "fx",
    "synth",
    "strings",
    "percussion",
    "keyboard",
    "guitar",
    "bass",
    "drums",
    "backing_vocals",
    "vocals",
)


class SourceContext(Enum):
    """What the model sees of the source."""

    NONE = "nothing: silence stands there"
    CODES = "its audio codes turned back into latents: the structure without the sound"
    WHOLE = "all of it"
    AROUND = "what lies outside of the regions; they hold silence"


class Region(Enum):
    """Whether a task works on parts of the song."""

    NEVER = "never"
    OPTIONAL = "optional"
    ALWAYS = "always"


@dataclass(frozen=True)
class Task:
    """One thing the model was trained to do.

    instruction: the trained sentence that opens the caption prompt, byte for byte.
    source, region: how the source enters, and whether only a part of the song is made.
    track_instruction: the sentence with `{tracks}` in it, for a task that works on named tracks.
    max_tracks: how many tracks it takes.
    variants: the model families trained for it.
    """

    name: str
    instruction: str
    source: SourceContext = SourceContext.NONE
    region: Region = Region.NEVER
    track_instruction: str = ""
    max_tracks: int = 0
    variants: tuple[str, ...] = ALL_VARIANTS

    @property
    def needs_source(self) -> bool:
        """Whether it works on source audio, or on audio codes that stand for it."""
        return self.source is not SourceContext.NONE


TEXT2MUSIC = Task("text2music", "Fill the audio semantic mask based on the given conditions:")

# Also the task of a song from text once audio codes are given: the codes take the place of the source.
COVER = Task("cover", "Generate audio semantic tokens based on the given conditions:", SourceContext.CODES)

# Also extends a song: the source then has silence where it goes on.
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
    """A task, or the one of that name; RequestError if there is none."""
    if isinstance(task, Task):
        return task
    if not isinstance(task, str) or task not in TASKS:
        raise RequestError(f"unknown task {task!r}; allowed are {', '.join(TASKS)}")
    return TASKS[task]


def instruction(task: Task, tracks: Sequence[str] = ()) -> str:
    """The trained sentence of a task for these tracks. Raises RequestError for unknown tracks or too many."""
    if isinstance(tracks, str):
        tracks = (tracks,)
    unknown = [track for track in tracks if track not in TRACKS]
    if unknown:
        raise RequestError(f"unknown track {unknown[0]!r}; allowed are {', '.join(TRACKS)}")
    if len(tracks) > task.max_tracks:
        allowed = f"{task.max_tracks} at most" if task.max_tracks else "none"
        raise RequestError(f"{task.name} works on {allowed} of the tracks, got {', '.join(tracks)}")
    if not tracks:
        return task.instruction
    return task.track_instruction.format(tracks=" | ".join(track.upper() for track in tracks))


def family(config: ModelConfig) -> str:
    """Which of ALL_VARIANTS a model is."""
    if config.is_turbo:
        return "turbo"
    return "sft" if "sft" in config.model_version else "base"


def untrained(task: Task, config: ModelConfig) -> str | None:
    """A sentence when this model was not trained for the task, and which ones are; None when it was."""
    if family(config) in task.variants:
        return None
    return (
        f"this {family(config)} model was not trained for {task.name}: load a {' or '.join(task.variants)} "
        "model (2B or XL) instead"
    )
