"""The device, the sizes of the networks and the trained nano model, which all checks share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from acestep_core import Metadata, Song, load_model
from acestep_core.load import Model
from acestep_core.models.layers import LayerStack
from acestep_core.pipeline import encode, sample
from acestep_core.planner.load_planner import Planner, load_planner
from acestep_core.runtime.devices import pick_dtype
from acestep_core.sampling.settings import SamplingSettings
from acestep_core.text.encoder import TextCondition

from .device import Device
from .networks import Shape, released_shapes, tiny_shapes

CPU = torch.device("cpu")
SONG = Song("warm lo-fi piano", "[Verse]\nslow river", Metadata(bpm=90, key="C major", time_signature="4"))
SEED = 7


@dataclass
class Context:
    """The device, and how much to run.

    quick: tiny networks and short songs, for a CPU and for the simulated device.
    """

    device: Device
    quick: bool = False
    _models: dict[tuple, Model] = field(default_factory=dict)
    _texts: dict[int, tuple[TextCondition, Model]] = field(default_factory=dict)
    _planners: dict[tuple, Planner] = field(default_factory=dict)

    @cached_property
    def shapes(self) -> list[Shape]:
        return tiny_shapes() if self.quick else released_shapes()

    @property
    def torch_device(self) -> torch.device:
        return self.device.torch

    @property
    def seconds(self) -> float:
        """The duration of nano's songs. Windowed attention needs more than 10.3 seconds, which quick ones save."""
        return 6.0 if self.quick else 12.0

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype that the device's transformer has by default."""
        return pick_dtype(self.torch_device, "dit")

    def nano(self, *, fresh: str = "", **options: object) -> Model:
        """Load nano on the device once for the same options, in float32 if nothing else is given.

        fresh: a name for a model that a check changes.
        """
        key = (fresh, *sorted((name, str(value)) for name, value in options.items()))
        if key not in self._models:
            self._models[key] = self.load(**options)
        return self._models[key]

    def load(self, **options: object) -> Model:
        """Load nano. A quick one has two of its six layers."""
        model = load_model("nano", **{"device": self.torch_device, "dtype": "float32", **options})  # type: ignore
        if self.quick:
            assert model.network is not None
            model.network.decoder.layers = LayerStack(model.network.decoder.layers[:2])
        return model

    @cached_property
    def reference(self) -> Model:
        """Nano on the CPU in float32."""
        return self.load(device="cpu") if self.device.is_gpu else self.nano()

    def planner(self, **options: object) -> Planner:
        """Load nano's planner on the device once for the same options, in float32 if nothing else is given."""
        key = tuple(sorted((name, str(value)) for name, value in options.items()))
        if key not in self._planners:
            self._planners[key] = load_planner(
                "nano",
                **{"device": self.torch_device, "dtype": "float32", **options},  # type: ignore[arg-type]
            )
        return self._planners[key]

    @cached_property
    def reference_planner(self) -> Planner:
        return self.planner() if not self.device.is_gpu else load_planner("nano", device="cpu", dtype="float32")

    def latents(self, model: Model, **options: object) -> Tensor:
        """Sample a song, latents [1, T, 64]."""
        settings = SamplingSettings(steps=2 if self.quick else 8)
        usual = {"seconds": self.seconds, "seeds": [SEED], "settings": settings}
        return sample(model, self.text(model), **{**usual, **options})  # type: ignore[arg-type]

    def text(self, model: Model) -> TextCondition:
        """Return the encoded text of SONG, once for a text encoder."""
        key = id(model.text_encoder)
        if key not in self._texts:
            self._texts[key] = encode(model, SONG), model  # which lives on, as its id may not be that of another one
        return self._texts[key][0]

    @cached_property
    def reference_latents(self) -> Tensor:
        return self.latents(self.reference)
