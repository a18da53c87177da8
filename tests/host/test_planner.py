"""The planner in the real server: plans are cached, interrupts are quick, and bad input gives one sentence."""

from __future__ import annotations

import pytest

from .graph import find, load_workflow, with_inputs, without
from .server import REPO, ComfyServer, PromptRejected
from .test_workflows import quick_prompt


@pytest.fixture(scope="module")
def prompt(server: ComfyServer) -> dict:
    """The shipped workflow with Edit Song after the plan, without the node that saves codes."""
    planned = quick_prompt(server, "05 Planned song", seed=200)
    planned = without(planned, find(planned, "AS15_SaveCodes"))
    blank = {"source": "input", "caption": "", "lyrics": "", "duration": 0, "bpm": 0}
    blank |= dict.fromkeys(("language", "key", "time_signature"), "auto")
    planned["edit"] = {"class_type": "AS15_EditSong", "inputs": {"song": [find(planned, "AS15_Plan"), 0], **blank}}
    return with_inputs(planned, "AS15_Encode", song=["edit", 0])


def shown_by(server: ComfyServer, prompt: dict) -> list[dict]:
    """Return the songs that Edit Song shows."""
    return server.play(prompt).outputs[find(prompt, "AS15_EditSong")]["song"]


def test_a_plan_is_cached_until_its_song_or_seed_changes(server: ComfyServer, prompt: dict) -> None:
    plan, load = find(prompt, "AS15_Plan"), find(prompt, "AS15_LoadPlanner")
    server.play(prompt)
    other_take = with_inputs(prompt, "AS15_Sample", seed=201)
    assert {plan, load} <= server.play(other_take).cached
    for changed in (
        with_inputs(prompt, "AS15_Song", caption="slow jazz"),
        with_inputs(prompt, "AS15_Plan", seed=202),
    ):
        cached = server.play(changed).cached
        assert load in cached and plan not in cached


def test_edit_song_shows_the_plan_and_passes_edits_on(server: ComfyServer, prompt: dict) -> None:
    request = with_inputs(prompt, "AS15_Song", caption="slow waltz", bpm=93, key="D minor")
    request = with_inputs(request, "AS15_Plan", generate_codes=False, rewrite_caption=False, seed=207)
    (shown,) = shown_by(server, request)
    assert (shown["caption"], shown["bpm"], shown["key"]) == ("slow waltz", 93, "D minor")
    assert (shown["language"], shown["duration"]) == ("English", 6)
    edited = with_inputs(request, "AS15_EditSong", **{**shown, "source": "edits", "bpm": 120})
    edited = with_inputs(edited, "AS15_Song", caption="not planned")
    run = server.play(edited)
    assert run.outputs[find(prompt, "AS15_EditSong")]["song"] == [{**shown, "bpm": 120}]


def test_later_nodes_run_once_per_take_with_metadata_per_take(server: ComfyServer, prompt: dict) -> None:
    """Takes may differ in all metadata, their duration included."""
    free = with_inputs(prompt, "AS15_Song", lyrics="", language="auto")
    each = with_inputs(free, "AS15_Plan", metadata_per_take=True, batch_size=2, seed=205)
    run = server.play(each)
    shown = run.outputs[find(prompt, "AS15_EditSong")]["song"]
    assert len(shown) == 2 and shown[0] != shown[1]
    (saved,) = [output["audio"] for output in run.outputs.values() if "audio" in output]
    assert len(saved) == 2
    shared = server.play(with_inputs(each, "AS15_Plan", metadata_per_take=False))
    assert shared.outputs[find(prompt, "AS15_EditSong")]["song"] == shown[:1]


def test_an_older_graph_works_without_newer_widgets(server: ComfyServer, prompt: dict) -> None:
    older = with_inputs(prompt, "AS15_Plan", seed=206)
    plan = older[find(older, "AS15_Plan")]["inputs"]
    for name in ("top_p", "metadata_per_take"):
        del plan[name]
    newer = with_inputs(prompt, "AS15_Plan", seed=206, top_p=0.9, metadata_per_take=False)
    assert shown_by(server, older) == shown_by(server, newer)


def test_an_interrupt_stops_a_plan(server: ComfyServer, prompt: dict) -> None:
    long = with_inputs(with_inputs(prompt, "AS15_Song", duration=120.0), "AS15_Plan", seed=203, batch_size=4)
    logged = len(server.log)
    prompt_id = server.queue(long)
    server.wait_for_log("tokens of text", logged)  # the metadata is complete, the codes are being generated
    server.interrupt()
    assert server.wait(prompt_id, timeout=60).message("execution_interrupted")
    assert "tokens of codes" not in server.log[logged:]
    server.play(prompt)


def test_a_prompt_beyond_the_context(server: ComfyServer, prompt: dict) -> None:
    error = server.run(with_inputs(prompt, "AS15_Song", lyrics="la la la\n" * 4000)).error
    assert "context" in error and "\n" not in error


def test_text_that_is_not_codes(server: ComfyServer, prompt: dict) -> None:
    error = server.run(with_inputs(prompt, "AS15_Encode", codes="la la la")).error
    assert "'la la la'" in error


def test_a_text_encoder_is_not_a_planner(server: ComfyServer, prompt: dict) -> None:
    single = server.base / "models" / "text_encoders" / "qwen_0.6b_ace15.safetensors"
    single.parent.mkdir(exist_ok=True)
    single.write_bytes((REPO / "acestep_core/nano/Qwen3-Embedding-0.6B/model.safetensors").read_bytes())
    try:
        with pytest.raises(PromptRejected) as refusal:
            server.queue(with_inputs(prompt, "AS15_LoadPlanner", planner=f"text_encoders/{single.name}"))
    finally:
        single.unlink()
    sentences = refusal.value.node_errors[find(prompt, "AS15_LoadPlanner")]
    assert len(sentences) == 2  # one for each input that is validated with the planner
    assert all("vocabulary" in sentence and "217204" in sentence for sentence in sentences)


def test_the_workflows_use_nano(server: ComfyServer) -> None:
    """Nano's planner is part of this pack, so it is the first entry and always there."""
    options = server.object_info()["AS15_LoadPlanner"]["input"]["required"]["planner"][1]["options"]
    workflow = load_workflow(REPO / "workflows" / "05 Planned song.json")
    (chosen,) = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "AS15_LoadPlanner"]
    assert chosen == options[0] == "nano"
