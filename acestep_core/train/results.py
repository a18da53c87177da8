"""The files of a trained adapter: a single file, a folder of PEFT, and a card in Markdown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ..adapters.adapter import Adapter
from ..adapters.convert import convert_adapter
from ..errors import RequestError
from ..files import write_text
from .train_settings import TrainSettings
from .train_state import LossRow

CARD_SUFFIX = ".md"
_OF_CARDS = "An adapter for ACE-Step 1.5, trained on "
_AVERAGED = 50  # steps of the loss in a card


@dataclass(frozen=True)
class TrainedAdapter:
    """The result of training.

    path: the single file. folder: of PEFT, None for LoKr, which PEFT folders cannot hold.
    card: the Markdown file. losses: of each step. samples: songs made during the training.
    best: the single file of the step with the lowest loss of held-out songs, None without such songs.
    """

    path: Path
    folder: Path | None
    card: Path
    losses: tuple[LossRow, ...]
    samples: tuple[Path, ...]
    best: Path | None = None


@dataclass(frozen=True)
class BestAdapter:
    """The adapter after the step with the lowest loss of the held-out songs."""

    adapter: Adapter
    step: int
    loss: float


@dataclass(frozen=True)
class TrainingOrigin:
    """The origin of an adapter, for its header and card.

    base_model: the name or path of the model. variant: of the model.
    songs, seconds: number and length of the songs. dataset_hash: see `checks.dataset_hash`.
    trigger: words that the captions contain. example: a caption of the dataset.
    held_out: number of songs that were not trained on.
    """

    base_model: str
    variant: str
    songs: int
    seconds: float
    dataset_hash: str
    trigger: str
    example: str
    settings: TrainSettings
    held_out: int = 0

    def header(self, steps: int) -> dict[str, str]:
        """Return the entries of a safetensors header for the adapter after so many steps."""
        return {
            "modelspec.date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "modelspec.description": (
                f"{self.settings.kind} of rank {self.settings.rank}, trained for {steps} steps on "
                f"{self.songs} songs with {self.variant}"
            ),
            "modelspec.usage_hint": f"Caption: {self.example}",
            "acestep.base_model": self.base_model,
            "acestep.variant": self.variant,
            "acestep.steps": str(steps),
            "acestep.dataset_hash": self.dataset_hash,
            "acestep.settings": json.dumps(self.settings.to_dict()),
        }


def best_output(output: Path) -> Path:
    """Return the file of the best adapter beside that of the last one."""
    return output.with_name(f"{output.stem}-best{output.suffix}")


def card_path(output: Path) -> Path:
    """Return the file of the card beside that of the adapter."""
    return output.with_suffix(CARD_SUFFIX)


def check_card(output: Path) -> None:
    """Raise RequestError if the card of an adapter would replace a file that is no card."""
    card = card_path(output)
    try:
        ours = not card.exists() or _OF_CARDS in card.read_text("utf-8", errors="replace")
    except OSError as error:
        raise RequestError(f"{card} cannot be replaced: {error.strerror or error}") from error
    if not ours:
        raise RequestError(f"output: the card of {output.name} would replace {card}; choose another name")


def write_results(
    adapter: Adapter,
    best: BestAdapter | None,
    output: Path,
    peft: Path,
    origin: TrainingOrigin,
    losses: Sequence[LossRow],
    samples: Sequence[Path],
) -> TrainedAdapter:
    """Write the files of an adapter.

    best: None without held-out songs. output: the single file. peft: the folder, which is replaced.

    Raises RequestError.
    """
    header = origin.header(losses[-1].step if losses else origin.settings.steps)
    convert_adapter(adapter, output, header)
    best_path = None
    if best is not None:
        best_path = convert_adapter(best.adapter, best_output(output), origin.header(best.step))
    folder: Path | None = peft
    if origin.settings.kind == "lokr":
        folder = None
    else:
        _remove_folder(peft)
        convert_adapter(adapter, peft, header)
    card = card_path(output)
    write_text(card, _card(output, best, origin, losses, samples))
    return TrainedAdapter(output, folder, card, tuple(losses), tuple(samples), best_path)


def _remove_folder(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise RequestError(f"{folder} cannot be replaced: {error.strerror or error}") from error


def _card(
    output: Path,
    best: BestAdapter | None,
    origin: TrainingOrigin,
    losses: Sequence[LossRow],
    samples: Sequence[Path],
) -> str:
    settings, stem = origin.settings, output.stem
    steps = losses[-1].step if losses else settings.steps
    last = [row.loss for row in losses[-_AVERAGED:]]
    rows: dict[str, object] = {
        "Base model": f"{_cell(origin.base_model)} ({origin.variant})",
        "Trigger words": _cell(origin.trigger) or "none",
        "Kind": f"{settings.kind}, rank {settings.rank}, scale {settings.scale:g}, modules: {settings.modules}",
        "Dataset": f"{origin.songs} songs, {origin.seconds / 60:.1f} minutes, hash `{origin.dataset_hash[:16]}`",
        "Steps": f"{steps}, {settings.batch * settings.accumulation} crops each",
        "Learning rate": f"{settings.learning_rate:g}",
        "Loss": f"{sum(last) / len(last):.3f} over the last {len(last)} steps" if last else "unknown",
        "Seed": settings.seed,
    }
    if best is not None:
        songs = f"{origin.held_out} song{'s' * (origin.held_out != 1)}"
        rows["Held out"] = (
            f"{songs}; lowest loss {best.loss:.3f} after step {best.step}, in `{best_output(output).name}`"
        )
    lines = [f"# {stem}", "", f"{_OF_CARDS}{origin.songs} songs.", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""]
    lines += [
        "Use it at strength 1:",
        "",
        "```bash",
        f"acestep {_quoted(origin.example)} --lora {output.name}",
        "```",
        "",
    ]
    if samples:
        lines += ["Songs of one seed during the training: " + ", ".join(f"`{path.name}`" for path in samples), ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def _quoted(text: str) -> str:
    short = " ".join(text.split())[:200].replace("\\", "").replace('"', "'").replace("`", "'").replace("$", "")
    return f'"{short}"'
