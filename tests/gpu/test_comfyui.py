"""The scripted ComfyUI run, in its shortest configuration on a CPU."""

from __future__ import annotations

import json

import pytest
import torch

from tests.support.comfyui import find_comfyui

from . import comfyui


def test_one_configuration(tmp_path, capsys):
    file = tmp_path / "report.json"
    code = comfyui.main(["--cpu", "--quick", "--only", "default", "lowvram", "--out", str(file)])
    out = capsys.readouterr().out
    report = json.loads(file.read_text("utf-8"))
    assert code == 0, out
    default, lowvram = report["checks"]
    assert len(default["lines"]) == 6 and report["failed"] == []
    (line,) = lowvram["lines"]
    assert line["result"] == "not run" and "--cpu" in line["reason"]


@pytest.mark.parametrize(
    ("configuration", "cpu", "reason"),
    [
        (comfyui.Configuration(), False, ""),
        (comfyui.Configuration(("--fast",), cpu=True), True, ""),
        (comfyui.Configuration(("--novram",)), True, "excludes --cpu"),
        (comfyui.Configuration(("--warp",)), False, "has no --warp"),
        (comfyui.Configuration(("--use-sage-attention",), package="no_such_package"), False, "not installed"),
    ],
)
def test_what_cannot_run_has_a_reason(configuration, cpu, reason):
    assert reason in comfyui.reason_against(configuration, find_comfyui(), cpu)
    assert bool(reason) == bool(comfyui.reason_against(configuration, find_comfyui(), cpu))


@pytest.mark.parametrize(("late", "broken"), [("loaded\n", False), ("CUDA error: out of memory\n", True)])
def test_errors_of_the_songs_count_and_those_of_the_start_do_not(monkeypatch, late, broken):
    class Server:
        log = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'x'\n"
        queue = staticmethod(lambda prompt: prompt)
        unload_models = staticmethod(lambda forget: None)

    def song(server, dtype, seconds, steps, seed=7):
        server.log += late
        return seed

    monkeypatch.setattr(comfyui, "song_prompt", song)
    monkeypatch.setattr(comfyui, "audio_of", lambda server, seed: torch.full((4, 2), float(seed) * (-1) ** seed))
    lines = list(comfyui.songs_of(Server(), [], quick=True))
    assert ("FAILED" in {line.result for line in lines}) == broken


def test_a_failed_server_is_a_failed_line(monkeypatch, tmp_path):
    def broken(*_, **options):
        raise AssertionError("ComfyUI exited with 1 while starting.\nlog")

    monkeypatch.setattr(comfyui, "ComfyServer", broken)
    result = comfyui.run_configuration("default", [], find_comfyui(), True, True)
    (line,) = result.lines
    assert line.result == "FAILED" and "exited with 1" in line.reason
