"""Nano, loaded as the nodes load it, and what one can do with it."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from types import SimpleNamespace

import comfy.model_management as mm
import comfy.sample
import comfy.utils
import torch
from pack_under_test.acestep_core import pipeline
from pack_under_test.acestep_core.sampling.settings import SamplingSettings
from pack_under_test.acestep_core.song.song import Metadata, Song
from pack_under_test.nodes import conditioning as our_conditioning
from pack_under_test.nodes import files, loading
from pack_under_test.nodes.audio import DecodeNode, EncodeAudioNode
from pack_under_test.nodes.encode import EncodeNode
from pack_under_test.nodes.sample import SampleNode

FRAMES = 150  # 6 s
SEED = 11


class Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@dataclass
class World:
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        logging.getLogger("acestep").addHandler(self.log)
        files.register_model_folder()
        self.model, self.text_encoder, self.vae = self.load()
        self.song = Song("slow jazz", "[Verse]\nhello again", Metadata(duration=FRAMES / 25))
        self.conditioning = self.encode()
        mm.unload_all_models()

    @contextmanager
    def clean(self) -> Iterator[None]:
        """Nothing loaded, nothing interrupted and nobody listening, before a check and after it."""
        self._reset()
        try:
            yield
        finally:
            self._reset()

    def _reset(self) -> None:
        comfy.utils.set_progress_bar_global_hook(None)
        mm.interrupt_current_processing(False)
        mm.unload_all_models()
        gc.collect()
        self.log.lines.clear()

    # The nodes, with what the shipped workflow has.

    def load(self, dtype: str = "float32", variant: str | None = None):
        """A model, its text encoder and its VAE, nobody else's."""
        return loading.load_parts(files.resolve(files.EMBEDDED, "auto", "auto"), dtype, variant)

    def encode(self, task: object = None, **changes: object) -> our_conditioning.Conditioning:
        return EncodeNode.execute(self.text_encoder, replace(self.song, **changes), task).args[0]

    def sample(self, model=None, *, steps: int = 4, batch: int = 1, **changes) -> torch.Tensor:
        """Latents [B, 64, T] of our sampler."""
        return self.sample_latent(model, steps=steps, batch=batch, **changes)["samples"]

    def sample_latent(self, model=None, *, steps: int = 4, batch: int = 1, **changes) -> dict:
        """The LATENT of our sampler."""
        usual = {"guidance": 0.0, "shift": 0.0, "solver": "euler", "guidance_method": "cfg"}
        inputs = {**usual, **{"conditioning": self.conditioning, "seed": SEED, "batch_size": batch, "steps": steps}}
        return SampleNode.execute(model or self.model, **{**inputs, **changes}).args[0]

    def ksample(
        self, model=None, *, steps: int = 4, cfg: float = 1.0, callback=None, latent=None, conditioning=None
    ) -> torch.Tensor:
        """Latents [1, 64, T] of ComfyUI's, by the function that its KSampler node calls."""
        conditioning = conditioning or self.conditioning
        empty = torch.zeros(1, 64, FRAMES) if latent is None else latent
        noise = comfy.sample.prepare_noise(empty, SEED)
        zeroed = [[torch.zeros_like(caption), data] for caption, data in conditioning]
        return comfy.sample.sample(
            model or self.model,
            noise,
            steps,
            cfg,
            "euler",
            "simple",
            conditioning,
            zeroed,
            empty,
            seed=SEED,
            callback=callback,
            disable_pbar=True,
        )

    def decode(self, samples: torch.Tensor, vae=None) -> torch.Tensor:
        return self.decode_latent({"samples": samples}, vae)

    def decode_latent(self, latent: dict, vae=None) -> torch.Tensor:
        return DecodeNode.execute(vae or self.vae, latent, True).args[0]["waveform"]

    def encode_audio(self, waveform: torch.Tensor, vae=None) -> torch.Tensor:
        audio = {"waveform": waveform, "sample_rate": 48_000}
        return EncodeAudioNode.execute(vae or self.vae, audio).args[0]["samples"]

    @contextmanager
    def without_silence(self) -> Iterator[Callable[[], None]]:
        """While the model has no silence, as one that comes in a single file; what is given lets it hear some."""
        from pack_under_test.nodes.comfy_runtime import watched

        network = network_of(self.model)

        def hear() -> None:
            network.silence_latent = None
            with watched() as callbacks:
                self.vae.hear_silence(network, callbacks)

        own = network.silence_latent
        try:
            yield hear
        finally:
            network.silence_latent = own

    def placed(self, model, songs: int, frames: int, settings: SamplingSettings | None = None) -> pipeline.Model:
        from pack_under_test.nodes.comfy_runtime import placed_network

        text = self.text()
        rows = our_conditioning.condition_rows(text.caption, text.lyrics)
        return placed_network(model, settings or SamplingSettings(), songs, frames, rows)

    def text(self):
        caption, data = self.conditioning[0]
        return our_conditioning.text_condition(caption, data[our_conditioning.LYRICS], caption.shape[-1])


_prompts = count(1)


@contextmanager
def shown() -> Iterator[list[str]]:
    """What is written on the running node meanwhile."""
    from comfy_execution.utils import CurrentNodeContext

    texts: list[str] = []

    def send_sync(event: str, data: dict[str, str], client: str) -> None:
        assert (event, data["node"], client) == ("acestep.notes", "17", "the browser")
        texts.append(data["text"])

    server = SimpleNamespace(send_sync=send_sync, client_id="the browser")
    sys.modules["server"] = SimpleNamespace(PromptServer=SimpleNamespace(instance=server))
    try:
        with CurrentNodeContext(f"prompt {next(_prompts)}", "17"):
            yield texts
    finally:
        del sys.modules["server"]


def network_of(model) -> torch.nn.Module:
    return model.model.diffusion_model


@contextmanager
def counted(module: torch.nn.Module, before: Callable[[int], None] | None = None) -> Iterator[list[int]]:
    """How often `module` was called; `before` is told the number of each call, from 1 on, before it is done."""
    calls = [0]

    def hook(*_: object) -> None:
        calls[0] += 1
        if before is not None:
            before(calls[0])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape, (a.shape, b.shape)
    return (a - b).abs().max().item()


def similarity(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()
