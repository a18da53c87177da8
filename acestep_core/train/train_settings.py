"""The settings of a training run, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..checkpoints.variants import VARIANTS
from ..config import FRAME_RATE, MAX_SECONDS, MIN_FRAMES, ModelConfig
from ..errors import RequestError, shown
from ..sampling.schedule import make_schedule

KINDS = ("lora", "dora", "lokr")
MODULES = ("attention", "all")
TIMES = ("auto", "continuous", "turbo")
CONDITION_DROPOUT = 0.15  # of base and sft, which were trained with it
TURBO_STEPS = 8
OPTIMIZERS = ("adamw", "adamw8bit")


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a training run.

    kind: "lora", "dora" (LoRA with a trained magnitude) or "lokr" (Kronecker factors, smaller files).
    rank: of the factors. Higher ranks learn more of the songs and need more of them.
    alpha: the adapter is scaled by alpha / rank. None is twice the rank.
    rank_stabilized: scale by alpha / √rank (rsLoRA).
    modules: "attention" (the projections of self-attention and cross-attention) or "all" (and the MLPs).
    steps: updates of the weights. Each sees `batch` × `accumulation` crops.
    batch: crops computed at once.
    accumulation: batches per step.
    crop: seconds of a song that a step sees, at a random place. 0 is the whole song.
    learning_rate: at its peak, after `warmup` steps. It falls to zero along a cosine.
    weight_decay, clip: of AdamW, and the largest norm of the gradient.
    times: "continuous" draws t as sigmoid of a normal number of mean −0.4. "turbo" draws one of the eight times of the
        turbo models. "auto" is what the model was trained on: "turbo" for turbo models, else "continuous".
    condition_dropout: share of crops that train without text, for guidance. None is 0.15 for base and sft, and 0 for
        turbo models, which have no guidance.
    seed: of crops, order, noise and times.
    held_out: number or file names of songs that are not trained on, to measure the loss on them. 0 holds out none.
    held_out_every: steps between two measurements.
    patience: measurements without a lower loss after which the training ends. 0 trains all steps.
    dropout: share of the inputs of each adapted layer that the adapter does not see in a step.
    ema: decay of a moving average of the factors, such as 0.999, which the result then holds. 0 is none.
    optimizer: "adamw", or "adamw8bit", whose state needs a quarter of the memory and the package `bitsandbytes`.

    Raises RequestError.
    """

    kind: str = "lora"
    rank: int = 16
    alpha: float | None = None
    rank_stabilized: bool = False
    modules: str = "attention"
    steps: int = 1000
    batch: int = 1
    accumulation: int = 4
    crop: float = 30.0
    learning_rate: float = 1e-4
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    times: str = "auto"
    condition_dropout: float | None = None
    seed: int = 0
    held_out: int | tuple[str, ...] = 0
    held_out_every: int = 50
    patience: int = 0
    dropout: float = 0.0
    ema: float = 0.0
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        if isinstance(self.held_out, (list, tuple)):
            object.__setattr__(self, "held_out", tuple(self.held_out))
        for name, choices in _CHOICES:
            if getattr(self, name) not in choices:
                raise RequestError(f"{name} must be one of {', '.join(choices)}, got {shown(getattr(self, name))}")
        for name, least, most in _LIMITS:
            value = getattr(self, name)
            if value is None and name in ("alpha", "condition_dropout") or isinstance(value, tuple):
                continue
            whole = name in _WHOLE
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else (int, float))
                or not least <= value <= most
            ):
                number = "a whole number" if whole else "a number"
                raise RequestError(f"{name} must be {number} from {least:g} to {most:g}, got {shown(value)}")
        if 0 < self.crop < MIN_FRAMES / FRAME_RATE:
            raise RequestError(f"crop must be 0 or at least {MIN_FRAMES / FRAME_RATE:g} seconds, got {self.crop:g}")
        if not isinstance(self.rank_stabilized, bool):
            raise RequestError(f"rank_stabilized must be True or False, got {shown(self.rank_stabilized)}")
        if isinstance(self.held_out, tuple) and not all(isinstance(name, str) and name for name in self.held_out):
            raise RequestError(f"held_out must be a number or names of songs, got {shown(self.held_out)}")
        if self.patience and not self.held_out:
            raise RequestError("patience needs held-out songs: give their number or names as held_out")

    @property
    def scale(self) -> float:
        """The factor of the adapter's product."""
        alpha = 2.0 * self.rank if self.alpha is None else self.alpha
        return alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    @property
    def crop_frames(self) -> int | None:
        """Frames of a crop, None for whole songs."""
        return round(self.crop * FRAME_RATE) or None

    def turbo_times(self, config: ModelConfig) -> tuple[float, ...] | None:
        """Return the times to draw from for a model, None for continuous times."""
        variant = VARIANTS[config.model_version]
        continuous = not config.is_turbo or variant.name == "turbo-continuous"
        if self.times == "continuous" or (self.times == "auto" and continuous):
            return None
        return tuple(make_schedule(TURBO_STEPS, variant.shift)[:-1].tolist())

    def dropout_of(self, config: ModelConfig) -> float:
        """Return the share of crops without text for a model."""
        if self.condition_dropout is not None:
            return self.condition_dropout
        return 0.0 if config.is_turbo else CONDITION_DROPOUT

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, which counts from 0."""
        warmup = min(self.warmup, self.steps // 10)
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        share = (step - warmup) / max(1, self.steps - warmup)
        return self.learning_rate * (1 + math.cos(math.pi * min(1.0, share))) / 2

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON."""
        names = self.held_out
        return {**asdict(self), "held_out": list(names) if isinstance(names, tuple) else names}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Invert `to_dict`. Raises RequestError."""
        names = {each.name for each in fields(cls)}
        unknown = next((name for name in values if name not in names), None)
        if unknown is not None:
            raise RequestError(f"unknown setting {shown(unknown)}; known are {', '.join(sorted(names))}")
        return cls(**values)


_CHOICES = (("kind", KINDS), ("modules", MODULES), ("times", TIMES), ("optimizer", OPTIMIZERS))
_LIMITS = (
    ("rank", 1, 4096), ("alpha", 1e-3, 1e5), ("steps", 1, 1_000_000), ("batch", 1, 256), ("accumulation", 1, 1024),
    ("crop", 0, MAX_SECONDS), ("learning_rate", 1e-9, 1.0), ("warmup", 0, 1_000_000), ("weight_decay", 0, 10),
    ("clip", 1e-6, 1e6), ("condition_dropout", 0, 1), ("seed", 0, 2**32 - 1), ("held_out", 0, 10_000),
    ("held_out_every", 1, 1_000_000), ("patience", 0, 1_000_000), ("dropout", 0, 0.9), ("ema", 0, 0.99999),
)  # fmt: skip
_WHOLE = ("rank", "steps", "batch", "accumulation", "warmup", "seed", "held_out", "held_out_every", "patience")
