"""Trainable factors, the loss, and the training loop on a tiny network."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from acestep_core.adapters.adapter_file import read_adapter
from acestep_core.adapters.convert import convert_adapter
from acestep_core.adapters.merge import AdapterUse, merge
from acestep_core.callbacks import Callbacks
from acestep_core.config import MIN_FRAMES
from acestep_core.errors import Cancelled, CheckpointError, NonFiniteError, RequestError
from acestep_core.models.model import AceStepModel
from acestep_core.models.ops import quantized_ops
from acestep_core.sampling.schedule import make_schedule
from acestep_core.train.batches import BatchOrder
from acestep_core.train.features import Features
from acestep_core.train.flow_loss import draw_times, flow_loss, recomputed_layers
from acestep_core.train.train_loop import TrainingRun
from acestep_core.train.train_settings import TrainSettings
from acestep_core.train.train_state import STATE, read_losses
from acestep_core.train.trainable import Trainable, make_trainable
from tests.support import tiny
from tests.support.tiny import draw, relative_error

WIDTH = tiny.STANDARD.encoder_hidden_size
BATCH = (
    draw(2, 41, 64, seed=3),
    [draw(1, 9, WIDTH, seed=5), draw(1, 5, WIDTH, seed=6)],
    draw(2, 41, 64, seed=4),
    torch.tensor([0.3, 0.8]),
)
KINDS = ["lora", "dora", "lokr"]


def trainable_of(kind: str, network: AceStepModel | None = None, **settings) -> Trainable:
    """Return factors whose product is not zero."""
    settings = TrainSettings(kind=kind, rank=4, modules="all", **settings)
    trainable = make_trainable(network or tiny.model(), settings)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(trainable.named_parameters()):
            noise = draw(*parameter.shape, seed=number)
            parameter.mul_(1 + 0.1 * noise) if "magnitude" in name else parameter.add_(0.1 * noise)
    return trainable


def gradients(trainable: Trainable) -> dict[str, torch.Tensor]:
    with trainable.attached():
        flow_loss(trainable.network, *BATCH).backward()
    return {name: parameter.grad for name, parameter in trainable.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_new_factors_change_nothing_and_trained_ones_as_the_written_file(kind, tmp_path):
    network = tiny.model()
    new = make_trainable(network, TrainSettings(kind=kind, rank=4))
    with torch.no_grad():
        plain = flow_loss(network, *BATCH)
        with new.attached():
            assert relative_error(flow_loss(network, *BATCH), plain) < 1e-6
    trainable = trainable_of(kind, network)
    with torch.no_grad():
        for parameter in trainable.parameters():  # exact in the file
            parameter.copy_(parameter.bfloat16())
        with trainable.attached():
            trained = flow_loss(network, *BATCH)
        path = convert_adapter(trainable.adapter("a", ("neon",)), tmp_path / "a.safetensors", {"acestep.steps": "7"})
        adapter = read_adapter(path)
        assert adapter.trigger == ("neon",) and adapter.report(network).matched == len(trainable.layers)
        assert relative_error(flow_loss(merge(network, [AdapterUse(adapter)]), *BATCH), trained) < 1e-5
        assert abs(trained - plain) > 1e-2 * plain
        if kind != "lokr":
            folder = read_adapter(convert_adapter(trainable.adapter("a"), tmp_path / "folder"))
            for name, weight in network.named_parameters():
                module = name.removesuffix(".weight")
                if module in adapter.modules:
                    assert torch.equal(folder.delta(module, weight), adapter.delta(module, weight))


def test_the_loss_is_that_of_a_plain_reimplementation():
    network = tiny.model()
    total = 0.0
    for data, condition, noise, t in zip(*BATCH, strict=True):
        x = t * noise + (1 - t) * data
        context = torch.cat([network.silence(41)[0], torch.ones(41, 64)], dim=1)[None]
        prepared = network.decoder.prepare(context, condition)
        with torch.no_grad():
            velocity = network.decoder(x[None], t[None], prepared)[0]
        total += ((velocity - (noise - data)) ** 2).mean().item() / 2
    assert flow_loss(network, *BATCH).item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_layers_have_the_same_gradients(kind):
    trainable, again = trainable_of(kind), trainable_of(kind)
    expected = gradients(trainable)
    with recomputed_layers(again.network):
        found = gradients(again)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())
    assert again.network.decoder.layers.stream is None


@pytest.mark.parametrize("storage", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_gradients_pass_through_quantised_weights(kind, storage):
    plain, quantised = tiny.model(), AceStepModel(tiny.STANDARD, quantized_ops(storage))
    values = plain.state_dict()
    for name, module in quantised.named_modules():
        if hasattr(module, "store"):
            module.store(values[f"{name}.weight"])
            with torch.no_grad():
                values[f"{name}.weight"] = module.weight_and_bias(torch.empty(0))[0]
    for name, parameter in quantised.named_parameters():
        if parameter.dtype == torch.float32:
            parameter.data.copy_(values[name])
    plain.load_state_dict(values)
    quantised.silence_latent = plain.silence_latent
    expected, found = (gradients(trainable_of(kind, network)) for network in (plain, quantised))
    assert all(relative_error(found[name], gradient) < 1e-4 for name, gradient in expected.items())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_bfloat16(kind):
    """The factors stay float32. The gradients differ by rounding alone."""
    expected = gradients(trainable_of(kind))
    network = tiny.model()
    network.decoder.bfloat16()
    found = gradients(trainable_of(kind, network))
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    one, other = (torch.cat([values[name].flatten() for name in expected]) for values in (found, expected))
    assert torch.cosine_similarity(one, other, dim=0) > 0.99


def test_a_rank_above_a_layer_is_refused():
    with pytest.raises(RequestError, match="rank"):
        make_trainable(tiny.model(), TrainSettings(rank=64))


# --- times, crops and settings ----------------------------------------------------------------------------------------


def test_times_of_turbo_models_and_of_others():
    turbo, base = tiny.STANDARD, replace(tiny.STANDARD, is_turbo=False, model_version="base")
    eight = TrainSettings().turbo_times(turbo)
    assert eight == tuple(make_schedule(8, 3.0)[:-1].tolist())
    assert TrainSettings().turbo_times(base) is None and TrainSettings(times="turbo").turbo_times(base) is not None
    assert TrainSettings(times="continuous").turbo_times(turbo) is None
    rngs = [random.Random(i) for i in range(4000)]
    assert set(draw_times(rngs, eight).tolist()) == set(torch.tensor(eight).tolist())
    logits = draw_times(rngs, None).logit()
    assert abs(logits.mean() + 0.4) < 0.05 and abs(logits.std() - 1) < 0.05
    assert TrainSettings().dropout_of(turbo) == 0 and TrainSettings().dropout_of(base) == 0.15


def test_every_epoch_has_every_song_once_in_batches_of_one_length():
    lengths = [200, 700, 300, 900, 300, 130]
    order = BatchOrder(lengths, 300, 2, seed=1)
    batches = [order[i] for i in range(2 * order.batches_per_epoch)]
    for epoch in (batches[: order.batches_per_epoch], batches[order.batches_per_epoch :]):
        assert sorted(crop.song for batch in epoch for crop in batch) == list(range(6))
    assert all(len({crop.frames for crop in batch}) == 1 for batch in batches)
    for crop in (crop for batch in batches for crop in batch):
        assert MIN_FRAMES <= crop.frames <= 300 and 0 <= crop.start <= lengths[crop.song] - crop.frames
    assert [crop.frames for crop in BatchOrder([812], None, 1, 0)[0]] == [812]
    assert [crop.frames for crop in BatchOrder([812], None, 2, 0)[0]] == [750]


def test_the_learning_rate_warms_up_and_falls_to_zero():
    rates = [TrainSettings(steps=200, warmup=10).rate_at(step) for step in range(200)]
    assert rates[0] < rates[9] < rates[10] == max(rates) == 1e-4 and rates[-1] < 1e-7
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    "settings",
    [{"rank": 0}, {"rank": 1.5}, {"steps": True}, {"crop": 2}, {"kind": "loha"}, {"times": "eight"}, {"clip": 0},
     {"learning_rate": float("nan")}, {"condition_dropout": 2}, {"alpha": "1"}, {"rank_stabilized": 1}],
)  # fmt: skip
def test_settings_out_of_range(settings):
    with pytest.raises(RequestError, match=next(iter(settings))):
        TrainSettings(**settings)


# --- the loop ---------------------------------------------------------------------------------------------------------


def run_in(folder, network=None, callbacks=None, visit=None, every=0, **settings):
    folder.mkdir(exist_ok=True)
    network = network or tiny.model(replace(tiny.STANDARD, is_turbo=False, model_version="base"))
    features = [
        Features(draw(length, 64, seed=i), draw(1, 5 + i, WIDTH, seed=10 + i))
        for i, length in enumerate((140, 150, 200))
    ]
    values = {"rank": 2, "steps": 9, "crop": 5.2, "accumulation": 2, "learning_rate": 1e-2, "kind": "dora"} | settings
    run = TrainingRun(network, features, TrainSettings(**values), folder, torch.device("cpu"), {"a": 1}, save_every=2)
    state, losses = run.train(callbacks or Callbacks(), every, visit)
    return state.trainable, losses


def factors_of(trainable: Trainable) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainable.named_parameters()}


def equal(one: Trainable, other: Trainable) -> bool:
    other = factors_of(other)
    return all(torch.equal(value, other[name]) for name, value in factors_of(one).items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_computed_on_the_device_of_the_run(tmp_path, monkeypatch, kind):
    """The device has no values here, and an operation with a tensor of another device fails."""
    monkeypatch.setattr(torch, "meta", object(), raising=False)  # torch 2.5 wants a module of the device to recompute
    network = tiny.model(replace(tiny.STANDARD, is_turbo=False, model_version="base"))
    network.decoder.to("meta")
    network.null_condition_emb = torch.nn.Parameter(network.null_condition_emb.to("meta"))
    features = [Features(draw(140, 64), draw(1, 5, WIDTH)), Features(draw(150, 64), draw(1, 3, WIDTH))]
    settings = TrainSettings(kind=kind, rank=2, crop=5.2, batch=2, condition_dropout=0.5)
    run = TrainingRun(network, features, settings, tmp_path, torch.device("meta"), {})
    trainable = make_trainable(network, settings)
    with trainable.attached(), recomputed_layers(network):
        for number in range(4):
            run.batch_loss(BatchOrder([140, 150], 130, 2, 0)[number]).backward()
    assert {parameter.grad.device.type for parameter in trainable.parameters()} == {"meta"}


class Killed(BaseException):
    """The end of the process."""


@pytest.mark.parametrize("last", [1, 4, 7])
def test_a_killed_run_continues_as_an_unbroken_one(tmp_path, last):
    expected, losses = run_in(tmp_path / "whole")

    def kill(step, trainable):
        if step == last:
            raise Killed

    with pytest.raises(Killed):
        run_in(tmp_path / "broken", visit=kill, every=1)
    found, found_losses = run_in(tmp_path / "broken")
    assert equal(found, expected)
    assert [(row.step, row.loss) for row in found_losses[last // 2 * 2 :]] == [
        (row.step, row.loss) for row in losses[last // 2 * 2 :]
    ]
    assert [row.step for row in read_losses(tmp_path / "broken" / "loss.csv")] == list(range(1, 10))


def test_a_cancelled_run_continues_at_its_step(tmp_path):
    expected, _ = run_in(tmp_path / "whole")
    steps = []
    callbacks = Callbacks(progress=lambda report: steps.append(report.step), cancelled=lambda: len(steps) == 3)
    with pytest.raises(Cancelled):
        run_in(tmp_path / "broken", callbacks=callbacks)
    steps.clear()
    found, _ = run_in(tmp_path / "broken", callbacks=Callbacks(progress=lambda report: steps.append(report.step)))
    assert steps == list(range(4, 10)) and equal(found, expected)


def test_an_interrupted_run_continues_at_its_step(tmp_path):
    expected, _ = run_in(tmp_path / "whole")

    def interrupt(report):
        if report.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "broken", callbacks=Callbacks(progress=interrupt))
    steps = []
    found, _ = run_in(tmp_path / "broken", callbacks=Callbacks(progress=lambda report: steps.append(report.step)))
    assert steps == list(range(4, 10)) and equal(found, expected)


def test_training_lowers_the_loss(tmp_path):
    _, losses = run_in(tmp_path / "a", steps=80, batch=3, accumulation=1, kind="lora", rank=8, learning_rate=3e-2)
    assert len(losses) == 80
    assert sum(row.loss for row in losses[-20:]) < 0.9 * sum(row.loss for row in losses[:20])


def test_visits_at_the_first_step_every_n_steps_and_at_the_end(tmp_path):
    visited = []
    run_in(tmp_path / "a", visit=lambda step, _: visited.append(step), every=4)
    assert visited == [0, 4, 8, 9]
    run_in(tmp_path / "a", visit=lambda step, _: visited.append(step), every=4)
    assert visited == [0, 4, 8, 9, 9]


def test_text_is_dropped_for_a_share_of_the_crops(tmp_path):
    def first_loss(name: str, null: float, dropout: float) -> float:
        network = tiny.model()
        with torch.no_grad():
            network.null_condition_emb.fill_(null)
        return run_in(tmp_path / name, network, condition_dropout=dropout, steps=1)[1][0].loss

    assert first_loss("a", 0.5, dropout=0.0) == first_loss("b", -1.0, dropout=0.0)
    assert first_loss("c", 0.5, dropout=1.0) != first_loss("d", -1.0, dropout=1.0)


def test_a_loss_without_a_number_stops_the_run(tmp_path):
    network = tiny.model()
    with torch.no_grad():
        network.decoder.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="step 1"):
        run_in(tmp_path / "a", network)
    assert not (tmp_path / "a" / STATE).exists()


def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / STATE).write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    with pytest.raises(CheckpointError, match="state"):
        run_in(tmp_path / "a")
