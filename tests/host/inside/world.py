"""Nano, loaded and run through the nodes, and helpers for the checks."""

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
from pack_under_test.nodes import files
from pack_under_test.nodes.audio import DecodeNode, EncodeAudioNode
from pack_under_test.nodes.comfy_runtime import conditioning as our_conditioning
from pack_under_test.nodes.comfy_runtime.load import load_model_sockets
from pack_under_test.nodes.comfy_runtime.model import model_for_sampling
from pack_under_test.nodes.comfy_runtime.progress import node_callbacks
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
        """Unload models, clear the interrupt and the log, before and after a check."""
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

    # The nodes, with the values of the shipped workflow.

    def load(self, dtype: str = "float32", variant: str | None = None):
        """Load another MODEL, text encoder and VAE."""
        return load_model_sockets(files.resolve_model(files.NANO_ENTRY, "auto", "auto"), dtype, variant)

    def encode(self, task: object = None, **changes: object) -> our_conditioning.Conditioning:
        return EncodeNode.execute(self.text_encoder, replace(self.song, **changes), task).args[0]

    def sample(self, model=None, *, steps: int = 4, batch: int = 1, **changes) -> torch.Tensor:
        """Return latents [B, 64, T] of Sample Song."""
        return self.sample_latent(model, steps=steps, batch=batch, **changes)["samples"]

    def sample_latent(self, model=None, *, steps: int = 4, batch: int = 1, **changes) -> dict:
        """Return the LATENT of Sample Song."""
        usual = {"guidance": 0.0, "shift": 0.0, "solver": "euler", "guidance_method": "cfg"}
        inputs = {**usual, **{"conditioning": self.conditioning, "seed": SEED, "batch_size": batch, "steps": steps}}
        return SampleNode.execute(model or self.model, **{**inputs, **changes}).args[0]

    def ksample(
        self, model=None, *, steps: int = 4, cfg: float = 1.0, callback=None, latent=None, conditioning=None
    ) -> torch.Tensor:
        """Return latents [1, 64, T] of the function that KSampler calls."""
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
        """Yield a function that encodes the silence latent again, as for a single file without one."""
        network = network_of(self.model)

        def encode_silence() -> None:
            network.silence_latent = None
            with node_callbacks() as callbacks:
                self.vae.encode_silence(network, callbacks)

        own = network.silence_latent
        try:
            yield encode_silence
        finally:
            network.silence_latent = own

    def placed(self, model, songs: int, frames: int, settings: SamplingSettings | None = None) -> pipeline.Model:
        text = self.text()
        rows = our_conditioning.condition_rows(text.caption, text.lyrics)
        return model_for_sampling(model, settings or SamplingSettings(), songs, frames, rows)

    def text(self):
        caption, data = self.conditioning[0]
        return our_conditioning.text_condition(caption, data[our_conditioning.LYRICS_KEY], caption.shape[-1])


_prompts = count(1)


@contextmanager
def shown() -> Iterator[list[str]]:
    """Run as a node of a prompt, and collect the texts that are sent for that node."""
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


def notes_of(work: Callable[[], object]) -> list[str]:
    """Return the lines that the running node shows in the end, without the values of widgets on auto."""
    return [line for line in lines_of(work) if not line.startswith("auto: ")]


def lines_of(work: Callable[[], object]) -> list[str]:
    with shown() as texts:
        work()
    return texts[-1].splitlines() if texts else []


def network_of(model) -> torch.nn.Module:
    return model.model.diffusion_model


@contextmanager
def counted(module: torch.nn.Module, before: Callable[[int], None] | None = None) -> Iterator[list[int]]:
    """Count the calls of `module`. `before` gets the number of each call, from 1 on, before the call."""
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
