"""Steps of training on the device: gradients against the CPU, an interrupted run against an unbroken one, memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from acestep_core.callbacks import Callbacks
from acestep_core.config import FRAME_RATE, LATENT_CHANNELS, ModelConfig
from acestep_core.errors import Cancelled
from acestep_core.models.model import AceStepModel
from acestep_core.train.features import Features
from acestep_core.train.flow_loss import flow_loss, recomputed_layers
from acestep_core.train.train_loop import TrainingRun
from acestep_core.train.train_settings import TrainSettings
from acestep_core.train.trainable import make_trainable

from .bounds import ROUNDINGS, name_of, relative_rms, rounding_bound
from .context import CPU, Context
from .networks import Stage, build_model, draw, randomised, with_few_layers
from .registry import Line, at_most, check, is_true, measured, not_run, shown

STEPS = 4
ROWS = 300  # of caption and lyrics
SETTINGS = TrainSettings(
    rank=16, steps=STEPS, accumulation=1, crop=0, dropout=0.1, ema=0.9, learning_rate=1e-3, held_out=1, held_out_every=2
)
REPEATED = 0.02  # of the change of the factors; kernels that sum in any order round differently in each run


def silent(network: AceStepModel) -> AceStepModel:
    device = network.decoder.proj_in[1].weight.device
    network.silence_latent = draw(1, 60, LATENT_CHANNELS).to(device)
    return network


@check("train.gradients", "the gradients of a LoRA on the device and on the CPU", 30)
def gradients(context: Context) -> Iterator[Line]:
    shape = context.shapes[0]
    config = with_few_layers(shape.network)
    stage = Stage("dit", lambda device, dtype: build_model(config, device, dtype), lambda network, _: network, 1, 1)
    reference = stage.twin(randomised(build_model(config, CPU, torch.float32)), CPU, plugins=False)
    expected = _gradients(context, reference, CPU, recompute=False)
    for dtype in (torch.float32, torch.bfloat16):
        for recompute in (False, True):
            twin = stage.twin(reference, context.torch_device, dtype, plugins=False)
            error = relative_rms(_gradients(context, twin, context.torch_device, recompute), expected)
            # Forward, backward to the inputs, backward to the factors.
            bound = rounding_bound(dtype, 3 * ROUNDINGS * config.num_hidden_layers, config.intermediate_size)
            label = f"{shape.name}, {name_of(dtype)}{', recomputed layers' if recompute else ''}"
            yield at_most(label, error, bound)


def _gradients(context: Context, network: torch.nn.Module, device: torch.device, recompute: bool) -> Tensor:
    """Return the gradients of all factors of one batch in one row."""
    assert isinstance(network, AceStepModel)
    silent(network)
    trainable = make_trainable(network, TrainSettings(rank=4))
    with torch.no_grad():
        for number, parameter in enumerate(trainable.parameters()):
            parameter.add_(0.02 * draw(*parameter.shape, seed=number).to(device))
    frames, width = 128 if context.quick else 640, network.config.encoder_hidden_size
    data, noise = (draw(1, frames, LATENT_CHANNELS, seed=seed).to(device) for seed in (3, 4))
    rows, times = draw(1, 90, width, seed=5).to(device, network.decoder.dtype), torch.tensor([0.6]).to(device)
    with trainable.attached():
        if recompute:
            with recomputed_layers(network):
                flow_loss(network, data, [rows], noise, times).backward()
        else:
            flow_loss(network, data, [rows], noise, times).backward()
    return torch.cat([parameter.grad.flatten().float().cpu() for parameter in trainable.parameters()])


@check("train.steps", "steps of training in bfloat16: an interruption, and the memory", 60)
def steps(context: Context) -> Iterator[Line]:
    shape, device = context.shapes[0], context.torch_device
    exact = context.device.is_gpu and context.dtype != torch.bfloat16
    dtype = torch.float32 if exact else torch.bfloat16  # as `acestep train` does; a CPU can compute in both
    seconds, label = (6, "6 s") if context.quick else (30, "30 s")
    size = dtype.itemsize * sum(
        each.numel() for each in build_model(shape.network, torch.device("meta"), dtype).parameters()
    )
    free = context.device.free_bytes()
    if free is not None and free < 2 * size:
        yield not_run(shape.name, f"the weights have {shown(size, 'B')}, and {shown(free, 'B')} are free")
        return
    network = randomised(build_model(shape.network, device, dtype))
    assert isinstance(network, AceStepModel)
    songs = _songs(silent(network).config, seconds)
    with tempfile.TemporaryDirectory() as name:
        whole = _run(Path(name, "whole"), network, songs, device)
        start = make_trainable(network, SETTINGS).copied()
        broken = Path(name, "broken")
        yield is_true("stops after two steps", _stopped(broken, network, songs, device))
        resumed = _run(broken, network, songs, device)
        change = torch.cat([(whole[key] - start[key]).flatten() for key in start])
        again = torch.cat([(resumed[key] - start[key]).flatten() for key in start])
        if context.device.is_gpu:
            yield at_most("continued, the factors of an unbroken run", relative_rms(again, change), REPEATED)
        else:
            yield is_true("continued, the factors of an unbroken run, bit for bit", torch.equal(again, change))
        for recompute in (True, False):
            folder = Path(name, f"memory {recompute}")
            peak = context.device.peak(lambda: _run(folder, network, songs, device, 1, recompute))  # noqa: B023
            what = f"{shape.name}, {name_of(dtype)}, {label}: memory{', recomputed layers' if recompute else ''}"
            yield measured(what, float(peak), "B", f"of a step, beside {shown(size, 'B')} of weights")


def _songs(config: ModelConfig, seconds: int) -> list[Features]:
    frames, width = seconds * FRAME_RATE, config.encoder_hidden_size
    return [Features(draw(frames, LATENT_CHANNELS, seed=seed), draw(1, ROWS, width, seed=seed)) for seed in range(3)]


def _run(
    folder: Path,
    network: AceStepModel,
    songs: list[Features],
    device: torch.device,
    steps: int = STEPS,
    recompute: bool = True,
    callbacks: Callbacks | None = None,
) -> dict[str, Tensor]:
    """Train, or continue a training, and return the factors on the CPU."""
    folder.mkdir(exist_ok=True)
    settings = TrainSettings(**{**SETTINGS.to_dict(), "steps": steps})
    run = TrainingRun(network, songs[1:], settings, folder, device, {}, 100, recompute, songs[:1])
    return run.train(callbacks or Callbacks())[0].trainable.copied()


def _stopped(folder: Path, network: AceStepModel, songs: list[Features], device: torch.device) -> bool:
    """Return True if a training stops after two steps."""
    done: list[int] = []
    stop = Callbacks(progress=lambda report: done.append(report.step), cancelled=lambda: len(done) == 2)
    try:
        _run(folder, network, songs, device, callbacks=stop)
    except Cancelled:
        return done == [1, 2]
    return False
