"""The planner nodes, with a planner of random weights: each input changes the result, and errors are raised."""

from __future__ import annotations

import gc
import logging
import re
import weakref
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from pack_under_test.acestep_core.checkpoints.catalog import Kind
from pack_under_test.acestep_core.planner.network import KVCache, PlannerNetwork
from pack_under_test.acestep_core.planner.planning import code_count
from pack_under_test.acestep_core.planner.scoring import score_codes
from pack_under_test.acestep_core.song.codes import parse_code_lines, parse_codes
from pack_under_test.acestep_core.song.song import Metadata, Song
from pack_under_test.nodes import files
from pack_under_test.nodes.comfy_runtime import conditioning as our_conditioning
from pack_under_test.nodes.comfy_runtime.planner import PlacedPlanner
from pack_under_test.nodes.cover import CoverNode
from pack_under_test.nodes.encode import EncodeNode
from pack_under_test.nodes.listen import ListenNode
from pack_under_test.nodes.loaders import LoadPlannerNode
from pack_under_test.nodes.plan import PlanNode
from pack_under_test.nodes.song import EditSongNode
from pack_under_test.nodes.write import PolishNode, WriteNode

from .edits import SOURCE
from .interrupts import alive, interrupted, stop_at, stop_when_shown
from .odd_inputs import refusal
from .world import World, counted, difference, notes_of, shown

NAME = "acestep-5Hz-lm-tiny"  # written by test_inside.py
SECONDS = 12.0  # above the shortest planned duration, so no codes are cut
CODES = 60

folder_paths.add_model_folder_path(files.MODELS, str(Path.cwd() / "models"))


def load(dtype: str = "float32") -> PlacedPlanner:
    return LoadPlannerNode.execute(NAME, dtype).args[0]


@lru_cache(maxsize=1)
def planner() -> PlacedPlanner:
    return load()


def song(**metadata: object) -> Song:
    return Song("slow jazz", "[Verse]\nhello again", Metadata(**{"duration": SECONDS, **metadata}))


def plan(request: Song | None = None, placed: PlacedPlanner | None = None, **inputs: object) -> tuple[Song, str]:
    """Return the only song and its codes."""
    (planned,), (written,) = plans(request, placed, **inputs)
    return planned, written


def plans(request: Song | None = None, placed: PlacedPlanner | None = None, **inputs: object) -> tuple[list, list]:
    """Return the node's two output lists."""
    usual = {"seed": 5, "batch_size": 1, "generate_codes": True, "rewrite_caption": True, "auto_duration": False,
             "guidance": 2.0, "temperature": 0.85, "best_of": 1, "negative_prompt": "", "top_p": 0.9,
             "metadata_per_take": False}  # fmt: skip
    return PlanNode.execute(placed or planner(), request or song(), **{**usual, **inputs}).args


def codes(**inputs: object) -> str:
    """Return codes of a song with complete metadata, which needs no plan."""
    return plan(song(bpm=90, key="C major", time_signature="4"), **inputs)[1]


def write(**inputs: object) -> Song:
    usual = {"idea": "a sea shanty", "seed": 3, "instrumental": False, "language": "auto", "duration": 0.0}
    return WriteNode.execute(planner(), **{**usual, "temperature": 0.85, **inputs}).args[0]


def all_differ(*results: object) -> None:
    assert all(result not in results[:i] for i, result in enumerate(results)), results


# -- plan --------------------------------------------------------------------------------------------------------------


def check_planning_fills_missing_metadata_only(world: World) -> None:
    planned, written = plan(generate_codes=False)
    meta = planned.metadata
    assert written == "" and None not in (meta.bpm, meta.key, meta.time_signature, meta.language)
    assert (meta.duration, planned.lyrics) == (SECONDS, song().lyrics) and planned.caption != song().caption
    own = song(bpm=91, language="fr")
    planned, _ = plan(own, generate_codes=False, rewrite_caption=False)
    meta = planned.metadata
    assert (planned.caption, meta.bpm, meta.language, meta.duration) == (own.caption, 91, "fr", SECONDS)
    assert None not in (meta.key, meta.time_signature)
    all_differ(*(plan(generate_codes=False, **change)[0] for change in ({}, {"seed": 6}, {"temperature": 1.9})))
    longer, _ = plan(own, generate_codes=False, auto_duration=True)
    assert longer.metadata.duration not in (None, SECONDS) and longer.metadata.bpm == 91


def check_codes_last_as_long_as_the_song_and_every_input_changes_them(world: World) -> None:
    usual = codes()
    assert len(parse_codes(usual)) == CODES and codes() == usual
    assert codes(guidance=0.0) == codes(guidance=1.0)  # off
    first, second = codes(batch_size=2).splitlines()
    assert (first, second) == (usual, codes(seed=6))
    others = [codes(**change) for change in (
        {"guidance": 1.0}, {"guidance": 4.0}, {"temperature": 0.0}, {"negative_prompt": "loud drums"},
        {"top_p": 0.3},
    )]  # fmt: skip
    all_differ(usual, second, *others)
    short, written = plan(song(duration=4.1))
    assert short.metadata.duration == 4.1 and len(parse_codes(written)) == 21


def check_each_take_may_have_its_own_metadata(world: World) -> None:
    request = replace(song(), metadata=Metadata())
    options = {"auto_duration": True, "placed": load()}
    alone = [plan(request, seed=seed, **options) for seed in (5, 6, 7)]
    songs, written = plans(request, batch_size=3, metadata_per_take=True, **options)
    assert list(zip(songs, written, strict=True)) == alone
    all_differ(*songs)
    for planned, own_codes in alone:
        assert len(parse_codes(own_codes)) == code_count(planned.metadata.duration)
    (first,), (together,) = plans(request, batch_size=2, **options)  # one plan for all
    assert first == alone[0][0] and together.splitlines()[0] == alone[0][1] and len(together.splitlines()) == 2
    assert plans(request, batch_size=2, metadata_per_take=True, generate_codes=False, **options) == (
        songs[:2],
        ["", ""],
    )
    scores = score_codes(planner().with_room(new_tokens=3000), parse_code_lines("\n".join(written)), request)
    order = sorted(range(3), key=lambda i: -scores[i].reward)
    best = plans(request, batch_size=2, best_of=3, metadata_per_take=True, **options)
    assert best == ([songs[i] for i in order[:2]], [written[i] for i in order[:2]])


def check_the_best_takes_come_first(world: World) -> None:
    request = song(bpm=90, key="C major", time_signature="4")
    tries = parse_code_lines(codes(batch_size=3))
    rewards = [each.reward for each in score_codes(planner().with_room(new_tokens=CODES), tries, request)]
    ranked = [tries[i] for i in sorted(range(3), key=lambda i: -rewards[i])]
    assert ranked != list(tries), "this test needs another seed"
    assert parse_code_lines(codes(best_of=3)) == tuple(ranked[:1])
    assert parse_code_lines(codes(best_of=3, batch_size=2)) == tuple(ranked[:2])


def check_a_planned_song_is_encoded_with_its_codes(world: World) -> None:
    planned, written = plan()

    def encoded(**inputs: object) -> our_conditioning.Conditioning:
        return EncodeNode.execute(world.text_encoder, planned, **inputs).args[0]

    cover = CoverNode.execute(1.0, 0.0, codes=written).args[0]
    with_codes, as_cover, without = encoded(codes=written), encoded(task=cover), encoded(codes="")
    songs = [world.sample(steps=2, conditioning=each) for each in (with_codes, as_cover, without)]
    assert difference(songs[0], songs[1]) == 0 and difference(songs[0], songs[2]) > 1e-3
    assert songs[0].shape[-1] == SECONDS * 25
    assert "Cover" in refusal(lambda: encoded(codes=written, task=cover))
    assert "cannot parse" in refusal(lambda: encoded(codes="la la la"))


# -- write, polish, listen, show ---------------------------------------------------------------------------------------


def check_one_line_becomes_a_song(world: World) -> None:
    written = write()
    meta = written.metadata
    assert written.caption and written.lyrics and None not in (meta.bpm, meta.key, meta.time_signature, meta.duration)
    all_differ(written, *(write(**change) for change in ({"idea": "night"}, {"seed": 4}, {"temperature": 0.2})))
    assert write(language="French").metadata.language == "fr"
    assert not re.search(r"^[^\[]", write(instrumental=True).lyrics, re.MULTILINE)
    timed = write(duration=12.5)
    assert timed.metadata.duration == 12.5 and timed.lyrics != written.lyrics  # the prompt contains the duration


def check_polishing_keeps_the_users_metadata(world: World) -> None:
    rough = song(bpm=77, key="Bb minor")

    def polished(seed: int = 1, temperature: float = 0.85) -> Song:
        return PolishNode.execute(planner(), rough, seed, temperature).args[0]

    result = polished()
    assert (result.metadata.bpm, result.metadata.key, result.metadata.duration) == (77, "Bb minor", SECONDS)
    assert result.caption != rough.caption and result.metadata.time_signature
    all_differ(result, polished(seed=2), polished(temperature=0.2))


def listen(**inputs: object) -> tuple[Song, str]:
    return ListenNode.execute(planner(), **{"seed": 0, "temperature": 0.3, **inputs}).args


def check_listen_describes_audio_codes(world: World) -> None:
    written = codes()
    found, same = listen(codes=written)
    assert same == written and found.caption and found.metadata.bpm and found.metadata.duration == SECONDS
    all_differ(found, listen(codes=written, seed=1)[0], listen(codes=codes(seed=6))[0])
    two = f"{written}\n{codes(seed=6)}"
    with shown() as notes:
        assert listen(codes=two) == (found, written)
    note, rate = notes[-1].splitlines()  # the token rate stays below the note
    assert "first of 2 songs" in note and rate.endswith(" tokens/s")
    empty = {"codes": "", "model": world.model, "audio": SOURCE, "vae": world.vae}  # from a plan without codes
    assert "299" in refusal(lambda: listen(**empty))  # nano's codes exceed those of this planner
    assert refusal(lambda: listen(codes=" ")).startswith("codes: empty")
    assert "cannot parse" in refusal(lambda: listen(codes="<audio 7>"))
    assert "63999" in refusal(lambda: listen(codes="1, 63999"))
    assert refusal(lambda: listen(audio=SOURCE, vae=world.vae)).startswith("model: missing")
    assert refusal(lambda: listen(model=world.model)).startswith("audio or latent: missing")


def check_ignored_options_of_a_plan_are_noted(world: World) -> None:
    whole = song(bpm=90, key="C major", time_signature="4")
    cases = [
        ({"negative_prompt": "drums", "guidance": 1.0}, "guidance"),
        ({"request": whole}, "caption"),
        (
            {"generate_codes": False, "batch_size": 2, "best_of": 2, "negative_prompt": "drums"},
            "batch_size, best_of, negative_prompt",
        ),
    ]
    for inputs, words in cases:
        assert words in notes_of(lambda inputs=inputs: plans(**inputs))[0]
    assert len(notes_of(lambda: plans(negative_prompt="drums"))) == 1  # the token rate


def check_edit_song_shows_a_song_and_passes_it_or_the_edits_on(world: World) -> None:
    blank = {"caption": "", "lyrics": "", "language": "auto", "duration": 0.0, "bpm": 0, "key": "auto"}
    blank["time_signature"] = "auto"
    whole = Song("slow jazz", "[Verse]\nhello", Metadata(90, "F# minor", "6", "fr", 30.5))
    output = EditSongNode.execute("input", **blank, song=whole)
    assert output.args == (whole, "slow jazz\n\n90 BPM · F# minor · 6/8 · French · 30.5 s\n\n[Verse]\nhello")
    (shown,) = output.ui["song"]
    # What is shown makes the same song again, and a changed field another one.
    assert EditSongNode.execute("edits", **shown).args[0] == whole
    changed = EditSongNode.execute("edits", **{**shown, "bpm": 0}, song=whole).args[0]
    assert changed == replace(whole, metadata=replace(whole.metadata, bpm=None))
    assert EditSongNode.execute("input", **{**blank, "caption": "slow jazz"}).args == (
        Song("slow jazz"),
        "slow jazz\n\n[Instrumental]",
    )
    assert "caption and lyrics are empty" in refusal(lambda: EditSongNode.execute("input", **blank))
    # Nodes before run only if their song is passed on.
    assert EditSongNode.check_lazy_status("input", song=None, **blank) == ["song"]
    assert EditSongNode.check_lazy_status("input", **blank) == []
    assert EditSongNode.check_lazy_status("edits", song=None, **blank) == []


# -- files, interrupts, memory -----------------------------------------------------------------------------------------


def check_the_list_has_planners_and_no_text_encoders(world: World) -> None:
    assert NAME in files.model_entries(Kind.PLANNER) and NAME not in files.model_entries(Kind.TEXT_ENCODER)
    assert NAME not in files.model_entries(Kind.NETWORK)
    assert not [name for name in files.model_entries(Kind.PLANNER) if "Qwen3-Embedding" in name]


def check_an_unreadable_folder_is_skipped(world: World) -> None:
    usual, closed = Path.iterdir, Path.cwd() / "models" / "lost+found"

    def iterdir(folder: Path):
        if folder == closed:
            raise PermissionError(13, "Permission denied", folder)
        return usual(folder)

    closed.mkdir()
    Path.iterdir = iterdir
    try:
        assert NAME in files.model_entries(Kind.PLANNER)
    finally:
        Path.iterdir = usual
        closed.rmdir()


def check_an_interrupt_stops_within_one_token(world: World) -> None:
    whole = codes()
    network = planner().network
    for number in (1, 2, 9):
        with counted(network, stop_at(number)) as calls:
            assert interrupted(codes)
        assert calls[0] == number
        assert alive(KVCache) == 0
    for work in (write, lambda: listen(codes=whole), lambda: plan(generate_codes=False)):
        with counted(network, stop_at(7)) as calls:
            assert interrupted(work)
        assert calls[0] == 7 and alive(KVCache) == 0
    assert codes() == whole


def check_an_interrupt_while_loading(world: World) -> None:
    networks = alive(PlannerNetwork)
    stop_when_shown(1)
    assert interrupted(load)
    assert alive(PlannerNetwork) == networks and mm.current_loaded_models == []
    comfy.utils.set_progress_bar_global_hook(None)


def check_unload_models_frees_the_planner(world: World) -> None:
    placed = load()
    plan(placed=placed)
    assert [loaded.model for loaded in mm.current_loaded_models] == [placed.patcher]
    assert alive(KVCache) == 0
    mm.load_models_gpu([placed.patcher])
    assert placed.patcher.loaded_size() > 0
    mm.unload_all_models()
    assert mm.current_loaded_models == [] and placed.patcher.loaded_size() == 0
    network = weakref.ref(placed.network)
    del placed
    gc.collect()
    assert network() is None


def check_every_dtype_generates_codes(world: World) -> None:
    for dtype, kind in (("bfloat16", torch.bfloat16), ("float16", torch.float16), ("auto", torch.float32)):
        placed = load(dtype)
        assert placed.network.dtype == kind
        assert len(parse_codes(codes(placed=placed, temperature=0.0))) == CODES
    assert "'int3'" in refusal(lambda: load("int3"))


def check_device_and_token_rate_are_reported(world: World) -> None:
    logging.getLogger("acestep").setLevel(logging.INFO)
    try:
        with shown() as texts:
            codes(batch_size=2)
        assert re.fullmatch(rf"{2 * CODES} tokens, \d+ tokens/s", texts[-1].splitlines()[-1])
        with shown() as texts:
            plan(generate_codes=False)
    finally:
        logging.getLogger("acestep").setLevel(logging.NOTSET)
    assert world.log.lines.count("planner on cpu") == 2
    tokens = int(re.fullmatch(r"(\d+) tokens, \d+ tokens/s", texts[-1])[1])
    (logged,) = [int(m[1]) for line in world.log.lines if (m := re.match(r"plan: (\d+) tokens of text", line))]
    assert tokens == logged


def check_other_files_are_refused_before_the_run(world: World) -> None:
    for choice, word in (
        ("acestep/text-encoder", "151669"),
        ("acestep/odd", "1000"),
        ("gone", "'gone'"),
        ("acestep/../secret", "model folders"),
        (files.HINTS[Kind.PLANNER], "models/acestep"),
    ):
        assert word in LoadPlannerNode.validate_inputs(choice), choice
    assert LoadPlannerNode.validate_inputs(NAME) is True


def check_a_prompt_beyond_the_context_is_refused(world: World) -> None:
    lyrics = "\n".join(["la la la"] * 1000)
    sentence = refusal(lambda: plan(replace(song(), lyrics=lyrics)))
    assert "context" in sentence and re.search(r"\d+ tokens", sentence)
    assert alive(KVCache) == 0
