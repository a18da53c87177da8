"""A short run of the fuzz suite, and proofs that the suite finds faults."""

from __future__ import annotations

import random
import sys
import time

import pytest
import torch

from acestep_core.checkpoints import reader
from acestep_core.errors import CheckpointError

from . import adapters, checkpoints, requests
from .run import Outcome, classify, run

TARGETS = adapters.TARGETS | checkpoints.TARGETS | requests.TARGETS
INPUTS, SEED = 300, 1


def test_hostile_inputs_end_in_a_sentence_or_a_right_result(tmp_path):
    report = run(TARGETS, tmp_path, INPUTS, SEED)
    assert not report.faults, "\n\n".join([*report.faults, report.table()])


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - {"command_line"}))
def test_valid_inputs_are_accepted(tmp_path, monkeypatch, name):
    for module, mutation in (
        (checkpoints, "mutate_bytes"), (checkpoints, "mutate_json"), (checkpoints, "mutate_header"),
        (checkpoints, "damage_value"),
        (adapters, "mutate_json"), (adapters, "mutate_header"),
        (requests, "mutate_bytes"), (requests, "mutate_json"), (requests, "mutate_value"),
    ):  # fmt: skip
        monkeypatch.setattr(module, mutation, lambda rng, content: content)
    folders = [tmp_path / str(i) for i in range(5)]  # shard_index also deletes files at times
    for i, folder in enumerate(folders):
        folder.mkdir()
        outcome = classify(TARGETS[name](random.Random(i), folder))
        assert outcome[0] is Outcome.ACCEPTED or name == "shard_index", outcome
    assert name != "shard_index" or outcome[0] in (Outcome.ACCEPTED, Outcome.SENTENCE)


def test_outcomes(monkeypatch):
    def fail(error: BaseException):
        raise error

    assert classify(lambda: None)[0] is Outcome.ACCEPTED
    assert classify(lambda: "NaN") == (Outcome.WRONG, "NaN")
    assert classify(lambda: fail(CheckpointError("one line")))[0] is Outcome.SENTENCE
    for error in (CheckpointError("two\nlines"), CheckpointError(""), ValueError("x"), SystemExit(2)):
        assert classify(lambda error=error: fail(error))[0] is Outcome.TRACEBACK
    monkeypatch.setattr(sys.modules[classify.__module__], "DEADLINE", 0.1)
    assert classify(lambda: time.sleep(5))[0] is Outcome.HANG


def test_an_input_is_the_same_again(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "again").mkdir()
    one, again = (run(TARGETS, tmp_path / name, 60, 5, only=50) for name in ("first", "again"))
    assert one.counts == again.counts and len(one.faults) == 1


def test_a_reader_that_reads_other_bytes_is_found(tmp_path, monkeypatch):
    read = reader.TensorReader.read
    monkeypatch.setattr(reader.TensorReader, "read", lambda self, entry: read(self, entry) + torch.tensor(1.0))
    targets = {name: checkpoints.TARGETS[name] for name in ("network_config", "network_header", "shard_index")}
    assert any("differs from the file" in fault for fault in run(targets, tmp_path, 40, 1).faults)
