"""Our own socket types, the node categories, and widgets that several nodes share."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy_runtime.versions import advanced

# Folders of the node library.
LOADERS, SONG, SAMPLING, AUDIO, EDITS, PLANNER, TRAINING = (
    f"ACE-Step 1.5/{stage}" for stage in ("loaders", "song", "sampling", "audio", "edits", "planner", "training")
)
AUTO = "auto"
MAX_SEED = 2**64 - 1
MAX_BATCH = 64

TextEncoderSocket = io.Custom("ACESTEP_TEXT_ENCODER")
SongSocket = io.Custom("ACESTEP_SONG")
PlannerSocket = io.Custom("ACESTEP_PLANNER")
TaskSocket = io.Custom("ACESTEP_TASK")
TimesSocket = io.Custom("ACESTEP_TIMES")
DatasetSocket = io.Custom("ACESTEP_DATASET")
TrainOptionsSocket = io.Custom("ACESTEP_TRAIN_OPTIONS")
ComboSocket = io.Custom("COMBO")  # any dropdown: the type of io.Combo.Output is its list of options


def seed_input(tooltip: str) -> io.Input:
    return io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True, tooltip=tooltip)


def seconds_input(
    name: str, default: float, maximum: float, step: float, tooltip: str, *, optional: bool = False
) -> io.Input:
    return io.Float.Input(
        name, default=default, min=0.0, max=maximum, step=step, round=0.01, optional=optional, tooltip=tooltip
    )


def share_input(name: str, default: float, tooltip: str, *, optional: bool = False, maximum: float = 1.0) -> io.Input:
    """A number from 0 to `maximum`."""
    return io.Float.Input(
        name, default=default, min=0.0, max=maximum, step=0.05, round=0.01, optional=optional, tooltip=tooltip
    )


def graphs_input(default: bool, tooltip: str) -> io.Input:
    return advanced(io.Boolean.Input("graphs", optional=True, default=default, tooltip=tooltip))


def temperature_input(default: float, tooltip: str) -> io.Input:
    return advanced(share_input("temperature", default, tooltip, maximum=2.0))
