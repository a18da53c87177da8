"""The planner in the real server: plans are kept, a stop is prompt, and what cannot be done is said in one sentence."""

from __future__ import annotations

import time

import pytest

from .graph import find, load_workflow, with_inputs
from .server import REPO, ComfyServer, PromptRejected
from .test_workflows import hurried


@pytest.fixture(scope="module")
def prompt(server: ComfyServer) -> dict:
    return hurried(server, "planned_song", seed=200)


def text_of(server: ComfyServer, prompt: dict) -> str:
    """What Show Song shows."""
    return server.play(prompt).outputs[find(prompt, "AS15_ShowSong")]["text"][0]


def test_a_plan_is_kept_until_its_song_or_seed_changes(server: ComfyServer, prompt: dict) -> None:
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


def test_show_song_shows_what_was_planned(server: ComfyServer, prompt: dict) -> None:
    asked = with_inputs(prompt, "AS15_Song", caption="slow waltz", bpm=93, key="D minor")
    shown = text_of(server, with_inputs(asked, "AS15_Plan", write_codes=False, rewrite_caption=False))
    assert shown.startswith("slow waltz\n\n93 BPM · D minor · ")
    assert shown.split("\n\n")[1].endswith(" · English · 6 s")


def test_songs_that_are_planned_one_by_one_are_played_one_by_one(server: ComfyServer, prompt: dict) -> None:
    """What follows runs for each, so that they may differ in all that a plan says, their length included."""
    free = with_inputs(prompt, "AS15_Song", lyrics="", language="auto")
    each = with_inputs(free, "AS15_Plan", plan_each=True, batch_size=2, seed=205)
    run = server.play(each)
    shown = run.outputs[find(prompt, "AS15_ShowSong")]["text"]
    assert len(shown) == len(set(shown)) == 2
    (saved,) = [output["audio"] for output in run.outputs.values() if "audio" in output]
    assert len(saved) == 2
    together = server.play(with_inputs(each, "AS15_Plan", plan_each=False))
    assert together.outputs[find(prompt, "AS15_ShowSong")]["text"] == shown[:1]


def test_an_older_graph_knows_nothing_of_newer_widgets(server: ComfyServer, prompt: dict) -> None:
    older = with_inputs(prompt, "AS15_Plan", seed=206)
    plan = older[find(older, "AS15_Plan")]["inputs"]
    for name in ("top_p", "plan_each"):
        del plan[name]
    newer = with_inputs(prompt, "AS15_Plan", seed=206, top_p=0.9, plan_each=False)
    assert text_of(server, older) == text_of(server, newer)


def test_stop_ends_a_plan(server: ComfyServer, prompt: dict) -> None:
    long = with_inputs(with_inputs(prompt, "AS15_Song", duration=120.0), "AS15_Plan", seed=203, batch_size=4)
    logged = len(server.log)
    prompt_id = server.queue(long)
    while "tokens of text" not in server.log[logged:]:  # its facts are there, its codes under way
        time.sleep(0.05)
    server.interrupt()
    assert server.wait(prompt_id, timeout=60).message("execution_interrupted")
    assert "tokens of codes" not in server.log[logged:]
    server.play(prompt)


def test_a_prompt_beyond_the_context(server: ComfyServer, prompt: dict) -> None:
    error = server.run(with_inputs(prompt, "AS15_Song", lyrics="la la la\n" * 4000)).error
    assert error.startswith("the planner's context holds") and "\n" not in error


def test_codes_that_are_none(server: ComfyServer, prompt: dict) -> None:
    error = server.run(with_inputs(prompt, "AS15_Encode", codes="la la la")).error
    assert error.startswith("audio codes: cannot parse 'la la la'")


def test_a_text_encoder_is_no_planner(server: ComfyServer, prompt: dict) -> None:
    single = server.base / "models" / "text_encoders" / "qwen_0.6b_ace15.safetensors"
    single.parent.mkdir(exist_ok=True)
    single.write_bytes((REPO / "acestep_core/nano/Qwen3-Embedding-0.6B/model.safetensors").read_bytes())
    try:
        with pytest.raises(PromptRejected) as refusal:
            server.queue(with_inputs(prompt, "AS15_LoadPlanner", planner=f"text_encoders/{single.name}"))
    finally:
        single.unlink()
    (sentence,) = refusal.value.node_errors[find(prompt, "AS15_LoadPlanner")]
    assert "its vocabulary has" in sentence and "a planner LM has 217204" in sentence


def test_the_workflows_ask_for_nano(server: ComfyServer) -> None:
    """Its planner comes with this pack, so it is the first on offer and always there."""
    offered = server.object_info()["AS15_LoadPlanner"]["input"]["required"]["planner"][1]["options"]
    workflow = load_workflow(REPO / "workflows" / "planned_song.json")
    (asked,) = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "AS15_LoadPlanner"]
    assert asked == offered[0] == "nano"
