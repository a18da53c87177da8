"""Song Folder and Train LoRA: an adapter of one's own songs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import io, ui

from ..acestep_core.checkpoints.catalog import Kind
from ..acestep_core.errors import RequestError
from ..acestep_core.train.train_settings import KINDS, MODULES
from .checks import valid
from .comfy_runtime.versions import advanced, search_aliases, zero_shown_as
from .files import (
    EXAMPLE_SONGS,
    NANO_ENTRY,
    fingerprint,
    folder_fingerprint,
    lora_target,
    model_entries,
    resolve_model,
    song_folder,
)
from .sockets import AUTO, TRAINING, ComboSocket, DatasetSocket, TrainOptionsSocket

if TYPE_CHECKING:
    from ..acestep_core.train.checks import CheckedDataset

STORAGE = [AUTO, "int8", "fp8"]
WORK = "training"  # in ComfyUI's output folder
FEW_NAMES = 3  # of songs in one sentence


class SongFolderNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_SongFolder",
            display_name="Song Folder",
            category=TRAINING,
            description="Checks a folder of songs for training, and lists every problem in one sentence.",
            is_output_node=True,
            **search_aliases("dataset, training data, load folder, audio folder"),
            inputs=[
                io.String.Input(
                    "folder",
                    default=EXAMPLE_SONGS,
                    tooltip="Folder of audio files in ComfyUI's input folder, or an absolute path. song.txt beside "
                    "song.flac is its caption, song.lyrics.txt its lyrics. Ten or more songs are typical.",
                )
            ],
            outputs=[
                DatasetSocket.Output(display_name="songs", tooltip="Songs to train on, for Train LoRA."),
                io.String.Output(display_name="report", tooltip="Number of songs, seconds, and every problem."),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder) -> bool | str:
        """Report a missing folder before the run. A linked input is None here."""
        return True if folder is None else valid(song_folder, folder)

    @classmethod
    def fingerprint_inputs(cls, folder) -> object:
        """Check again if a file of the folder changes."""
        return None if folder is None else folder_fingerprint(song_folder(folder))

    @classmethod
    def execute(cls, folder) -> io.NodeOutput:
        from ..acestep_core.train.checks import check_dataset
        from ..acestep_core.train.song_folder import read_dataset
        from .comfy_runtime.progress import node_callbacks

        path = song_folder(folder)
        try:
            with node_callbacks() as callbacks:
                # A caption for songs without one: Train LoRA has trigger words for them.
                checked = check_dataset(read_dataset(path, trigger="style"), callbacks)
            checked.require_songs()
        except RequestError as error:
            raise RequestError(f"folder: {str(error).removeprefix('dataset: ')}") from None
        report = "\n".join(report_of(checked))
        return io.NodeOutput(checked, report, ui=ui.PreviewText(report).as_dict())


def report_of(checked: CheckedDataset) -> list[str]:
    """Return what there is to train on, then a sentence for each problem, with paths that start in the folder."""
    count, minutes = len(checked.audio), checked.seconds / 60
    lines = [f"{count} song{'s' * (count != 1)}, {checked.seconds:.0f} seconds ({minutes:.1f} minutes)"]
    bare = [each.name for each in checked.dataset.examples if not (each.song.caption.strip() or each.trigger)]
    if bare:
        names = ", ".join(bare[:FEW_NAMES]) + (f" and {len(bare) - FEW_NAMES} more" if len(bare) > FEW_NAMES else "")
        lines.append(f"No caption for {names}: write one, or give Train LoRA trigger words")
    folder = checked.dataset.path
    inside = os.path.join(folder, "")
    return lines + [str(each).replace(inside, "").replace(str(folder), folder.name) for each in checked.problems]


class TrainLoraNode(io.ComfyNode):
    """The training runs in a process of its own, so that its end, by whatever cause, is not that of ComfyUI."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AS15_TrainLora",
            display_name="Train LoRA",
            category=TRAINING,
            description="Trains a LoRA on your songs, in a process of its own. If you stop it, the next Run continues.",
            is_output_node=True,
            **search_aliases("train lora, training, fine-tune, finetune, dora, lokr, trainer, own style"),
            inputs=[
                DatasetSocket.Input("songs", tooltip="Songs to train on, from Song Folder."),
                io.Combo.Input(
                    "model",
                    options=model_entries(Kind.NETWORK),
                    default=NANO_ENTRY,
                    tooltip="The diffusion model to train for, as Load Model lists it. A LoRA of base also works on "
                    "sft and turbo. nano is a tiny built-in demo.",
                ),
                io.String.Input(
                    "name",
                    default="my-style",
                    tooltip="Name of the LoRA in models/loras. A LoRA of another origin is never replaced.",
                ),
                io.String.Input(
                    "trigger",
                    default="",
                    tooltip="Trigger words, put before each caption, so that a caption can ask for the style. Empty "
                    "for none; an invented name is typical.",
                ),
                io.Int.Input(
                    "steps",
                    default=1000,
                    min=1,
                    max=1_000_000,
                    tooltip="Steps of training. More come closer to the songs, too many copy them. 500 to 2000 are "
                    "typical. A finished training continues with more.",
                ),
                io.Int.Input(
                    "rank",
                    default=16,
                    min=1,
                    max=4096,
                    tooltip="Rank. Higher learns more of the songs and needs more of them. 8 to 64 are typical.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=1e-4,
                    min=1e-6,
                    max=1.0,
                    step=1e-5,
                    round=1e-7,
                    tooltip="Learning rate. Higher learns faster and may distort the sound. 0.0001 is typical, 0.004 "
                    "for nano.",
                ),
                zero_shown_as(
                    "whole song",
                    io.Float.Input(
                        "crop",
                        default=30.0,
                        min=0.0,
                        max=600.0,
                        step=5.0,
                        round=0.01,
                        tooltip="Seconds of a song in each step, from a random place. Longer needs more memory. 30 is "
                        "typical, 0 is the whole song.",
                    ),
                ),
                io.Int.Input(
                    "sample_every",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Steps between two songs of one seed, to hear the progress, in output/training. 100 is "
                    "typical, 0 makes none.",
                ),
                io.Boolean.Input(
                    "restart",
                    default=False,
                    tooltip="Start again instead of continuing, as other settings or songs need. Usually off.",
                ),
                advanced(
                    io.Combo.Input(
                        "kind",
                        options=list(KINDS),
                        default=KINDS[0],
                        tooltip="Adapter type. dora may come closer to the songs, lokr makes smaller files. lora is "
                        "typical.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "modules",
                        options=list(MODULES),
                        default=MODULES[0],
                        tooltip="Target modules. all also trains the MLPs, which learns more of the sound. attention "
                        "is typical.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "storage",
                        options=STORAGE,
                        default=AUTO,
                        tooltip="Weight dtype of the frozen model. int8 and fp8 halve its memory and cost some "
                        "precision. auto does not quantise.",
                    )
                ),
                TrainOptionsSocket.Input(
                    "options",
                    optional=True,
                    tooltip="Options of Training Options: held-out songs, early stopping, dropout, EMA, optimizer.",
                ),
            ],
            outputs=[
                ComboSocket.Output(display_name="lora", tooltip="Name of the trained LoRA, for lora of Load LoRA."),
                io.String.Output(display_name="report", tooltip="Steps, loss, and the files of the training."),
                ComboSocket.Output(
                    display_name="best",
                    tooltip="Name of the LoRA with the lowest loss of the held-out songs, for lora of Load LoRA. The "
                    "same as lora if no song is held out.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model, name) -> bool | str:
        """Report a missing file or an unusable name before the run. A linked input is None here."""
        found = True if model is None else valid(resolve_model, model, AUTO, AUTO)
        return found if found is not True or name is None else valid(lora_target, name)

    @classmethod
    def fingerprint_inputs(cls, model, **_) -> object:
        """Train again if a file of the model changes under the same name."""
        if model is None:
            return None
        parts = resolve_model(model, AUTO, AUTO)
        return fingerprint(parts.network, parts.text_encoder, parts.vae)

    @classmethod
    def execute(cls, songs, model, name, trigger, restart, storage, options=None, **settings) -> io.NodeOutput:
        from ..acestep_core.train.results import best_output
        from ..acestep_core.train.train_settings import TrainSettings
        from ..acestep_core.train.train_state import LOSSES, STATE
        from .comfy_runtime.training import lowest_held_out, run_training, shown_losses

        settings |= options or {}
        TrainSettings(**{name: value for name, value in settings.items() if name != "sample_every"})
        target = lora_target(name)
        folder = Path(folder_paths.get_output_directory(), WORK, target.stem)
        best = best_output(target) if settings.get("held_out") else target
        for file in (target, best):
            if file.exists() and not (folder / STATE).exists():
                raise RequestError(f"name: {file.name} exists in {file.parent}. Choose another name.")
        given = {**settings, "trigger": " ".join(trigger.split()), "work": folder.parent, "output": target}
        if storage != AUTO:
            given["storage"] = storage
        run_training(songs.dataset.path, resolve_model(model, AUTO, AUTO), given, restart, folder / LOSSES)
        line, picture = shown_losses(folder, WORK)
        lines = [f"{target.name}: {line}", f"{WORK}/{folder.name} holds songs, losses and the state"]
        measured = lowest_held_out(folder / LOSSES)
        if measured is not None:
            lines.insert(1, f"{best.name}: lowest held-out loss {measured[1]:.3f}, after step {measured[0]}")
        report = "\n".join(lines)
        return io.NodeOutput(
            target.name, report, best.name, ui={**ui.PreviewText(report).as_dict(), "images": [picture]}
        )
