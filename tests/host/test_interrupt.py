"""An interrupt stops within a step or a tile, and the next song works."""

from __future__ import annotations

import time

import pytest

from .graph import load_workflow, to_prompt, with_inputs
from .server import REPO, ComfyServer


@pytest.mark.parametrize(
    ("node", "change", "sign"),
    [("AS15_Sample", {"steps": 1000}, "Requested to load AceStep15"), ("AS15_Song", {"duration": 600.0}, "sample: ")],
    ids=["while sampling", "while decoding"],
)
def test_interrupt(server: ComfyServer, node: str, change: dict, sign: str) -> None:
    shipped = to_prompt(load_workflow(REPO / "workflows" / "01 Text to music.json"), server.object_info())
    short = with_inputs(with_inputs(shipped, "AS15_Song", duration=1.0), "AS15_Sample", steps=1, seed=77)
    server.unload_models()
    server.play(with_inputs(short, "AS15_Song", bpm=30))
    server.unload_models()
    logged = len(server.log)
    prompt_id = server.queue(with_inputs(short, node, **change))
    server.wait_for_log(sign, logged)
    time.sleep(0.3)
    interrupted = time.monotonic()
    server.interrupt()
    run = server.wait(prompt_id, timeout=60)
    assert run.message("execution_interrupted")
    assert time.monotonic() - interrupted < 15
    server.play(short)
