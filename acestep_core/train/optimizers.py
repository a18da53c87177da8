"""The optimisers of a training, and the moving average of the factors."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..errors import RequestError, first_line
from .train_settings import TrainSettings
from .trainable import Trainable

PACKAGE = "bitsandbytes"


def check_optimizer(settings: TrainSettings) -> None:
    """Raise RequestError if the optimiser of the settings needs a package that cannot be imported."""
    if settings.optimizer == "adamw8bit":
        _adamw_of_8_bits()


def make_optimizer(parameters: Iterable[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Return a new optimiser. Raises RequestError."""
    kind: Callable[..., torch.optim.Optimizer]
    kind = _adamw_of_8_bits() if settings.optimizer == "adamw8bit" else torch.optim.AdamW
    return kind(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _adamw_of_8_bits() -> Callable[..., torch.optim.Optimizer]:
    try:
        return importlib.import_module(PACKAGE).optim.AdamW8bit
    except Exception as error:  # without a driver, its import fails in many ways
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"fails: {first_line(error)}"
        raise RequestError(
            f"optimizer: adamw8bit needs the package {PACKAGE}, which {reason}; install it, or choose adamw"
        ) from error


class AveragedFactors:
    """An exponential moving average (EMA) of the factors.

    values: by the names of the factors. Early steps weigh more, so that the average soon forgets the start.
    """

    def __init__(self, trainable: Trainable, decay: float):
        self.decay = decay
        self.values: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in trainable.named_parameters()
        }

    @torch.no_grad()
    def update(self, trainable: Trainable, step: int) -> None:
        """Include the factors after so many steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in trainable.named_parameters():
            self.values[name].lerp_(parameter, 1 - decay)
