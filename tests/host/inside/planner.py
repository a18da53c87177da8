"""The planner's nodes, with a planner of random weights: what each input changes, what is kept, what is refused."""

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
from pack_under_test.acestep_core.planner.functions import code_count
from pack_under_test.acestep_core.planner.network import Cache, PlannerNetwork
from pack_under_test.acestep_core.planner.scoring import score
from pack_under_test.acestep_core.song.codes import parse_codes, parse_songs
from pack_under_test.acestep_core.song.song import Metadata, Song
from pack_under_test.nodes import conditioning as our_conditioning
from pack_under_test.nodes import files
from pack_under_test.nodes.comfy_runtime import PlacedPlanner
from pack_under_test.nodes.cover import CoverNode
from pack_under_test.nodes.encode import EncodeNode
from pack_under_test.nodes.listen import ListenNode
from pack_under_test.nodes.load_planner import LoadPlannerNode
from pack_under_test.nodes.plan import PlanNode
from pack_under_test.nodes.show import ShowSongNode
from pack_under_test.nodes.write import PolishNode, WriteNode

from .edits import SOURCE
from .interrupts import alive, interrupted, stop_at, stop_when_shown
from .odd_inputs import refusal
from .world import World, counted, difference, shown

NAME = "acestep/acestep-5Hz-lm-tiny"  # where test_inside.py has put one
SECONDS = 12.0  # above the shortest song that codes are written for, so that none are cut off
CODES = 60

folder_paths.add_model_folder_path(files.MODELS, str(Path.cwd() / "models"))


def load(dtype: str = "float32") -> PlacedPlanner:
    return LoadPlannerNode.execute(NAME, dtype).args[0]


@lru_cache(maxsize=1)
def planner() -> PlacedPlanner:
    return load()


def song(**facts: object) -> Song:
    return Song("slow jazz", "[Verse]\nhello again", Metadata(**{"duration": SECONDS, **facts}))


def plan(wanted: Song | None = None, placed: PlacedPlanner | None = None, **inputs: object) -> tuple[Song, str]:
    """The one song and its codes."""
    (planned,), (written,) = plans(wanted, placed, **inputs)
    return planned, written


def plans(wanted: Song | None = None, placed: PlacedPlanner | None = None, **inputs: object) -> tuple[list, list]:
    """What the node's two outputs are lists of."""
    usual = {"seed": 5, "batch_size": 1, "write_codes": True, "rewrite_caption": True, "choose_duration": False,
             "guidance": 2.0, "temperature": 0.85, "best_of": 1, "negative": "", "first_layout": False, "top_p": 0.9,
             "plan_each": False}  # fmt: skip
    return PlanNode.execute(placed or planner(), wanted or song(), **{**usual, **inputs}).args


def codes(**inputs: object) -> str:
    """Codes of a song that needs no other plan: only what writes them is at work."""
    return plan(song(bpm=90, key="C major", time_signature="4"), **inputs)[1]


def write(**inputs: object) -> Song:
    usual = {"idea": "a sea shanty", "seed": 3, "instrumental": False, "language": "auto", "duration": 0.0}
    return WriteNode.execute(planner(), **{**usual, "temperature": 0.85, **inputs}).args[0]


def all_differ(*results: object) -> None:
    assert all(result not in results[:i] for i, result in enumerate(results)), results


# -- plan --------------------------------------------------------------------------------------------------------------


def check_planning_fills_gaps_and_nothing_else(world: World) -> None:
    planned, written = plan(write_codes=False)
    meta = planned.metadata
    assert written == "" and None not in (meta.bpm, meta.key, meta.time_signature, meta.language)
    assert (meta.duration, planned.lyrics) == (SECONDS, song().lyrics) and planned.caption != song().caption
    own = song(bpm=91, language="fr")
    planned, _ = plan(own, write_codes=False, rewrite_caption=False)
    meta = planned.metadata
    assert (planned.caption, meta.bpm, meta.language, meta.duration) == (own.caption, 91, "fr", SECONDS)
    assert None not in (meta.key, meta.time_signature)
    all_differ(*(plan(write_codes=False, **change)[0] for change in ({}, {"seed": 6}, {"temperature": 1.9})))
    longer, _ = plan(own, write_codes=False, choose_duration=True)
    assert longer.metadata.duration not in (None, SECONDS) and longer.metadata.bpm == 91


def check_codes_cover_the_song_and_every_input_matters(world: World) -> None:
    usual = codes()
    assert len(parse_codes(usual)) == CODES and codes() == usual
    assert codes(guidance=0.0) == codes(guidance=1.0)  # off
    first, second = codes(batch_size=2).splitlines()
    assert (first, second) == (usual, codes(seed=6))
    others = [codes(**change) for change in (
        {"guidance": 1.0}, {"guidance": 4.0}, {"temperature": 0.0}, {"negative": "loud drums"}, {"first_layout": True},
        {"top_p": 0.3},
    )]  # fmt: skip
    all_differ(usual, second, *others)
    short, written = plan(song(duration=4.1))
    assert short.metadata.duration == 4.1 and len(parse_codes(written)) == 21


def check_every_song_of_a_batch_may_have_a_plan_of_its_own(world: World) -> None:
    wanted = replace(song(), metadata=Metadata())
    facts = {"choose_duration": True, "placed": load()}
    alone = [plan(wanted, seed=seed, **facts) for seed in (5, 6, 7)]
    songs, written = plans(wanted, batch_size=3, plan_each=True, **facts)
    assert list(zip(songs, written, strict=True)) == alone
    all_differ(*songs)
    for planned, codes_of_it in alone:
        assert len(parse_codes(codes_of_it)) == code_count(planned.metadata.duration)
    (first,), (together,) = plans(wanted, batch_size=2, **facts)  # else they share the first one's plan
    assert first == alone[0][0] and together.splitlines()[0] == alone[0][1] and len(together.splitlines()) == 2
    assert plans(wanted, batch_size=2, plan_each=True, write_codes=False, **facts) == (songs[:2], ["", ""])
    ranked = [reward.reward for reward in score(planner().ready(more=3000), parse_songs("\n".join(written)), wanted)]
    order = sorted(range(3), key=lambda i: -ranked[i])
    best = plans(wanted, batch_size=2, best_of=3, plan_each=True, **facts)
    assert best == ([songs[i] for i in order[:2]], [written[i] for i in order[:2]])


def check_the_best_of_several_is_the_best(world: World) -> None:
    wanted = song(bpm=90, key="C major", time_signature="4")
    tries = parse_songs(codes(batch_size=3))
    rewards = [each.reward for each in score(planner().ready(more=CODES), tries, wanted)]
    ranked = [tries[i] for i in sorted(range(3), key=lambda i: -rewards[i])]
    assert ranked != list(tries), "another seed is needed for this test to tell"
    assert parse_songs(codes(best_of=3)) == tuple(ranked[:1])
    assert parse_songs(codes(best_of=3, batch_size=2)) == tuple(ranked[:2])


def check_a_planned_song_is_encoded_with_its_codes(world: World) -> None:
    planned, written = plan()

    def encoded(**told: object) -> our_conditioning.Conditioning:
        return EncodeNode.execute(world.text_encoder, planned, **told).args[0]

    cover = CoverNode.execute(1.0, 0.0, codes=written).args[0]
    with_codes, as_cover, without = encoded(codes=written), encoded(task=cover), encoded(codes="")
    heard = [world.sample(steps=2, conditioning=each) for each in (with_codes, as_cover, without)]
    assert difference(heard[0], heard[1]) == 0 and difference(heard[0], heard[2]) > 1e-3
    assert heard[0].shape[-1] == SECONDS * 25
    assert "a cover takes its codes in Cover" in refusal(lambda: encoded(codes=written, task=cover))
    assert "these are no audio codes" in refusal(lambda: encoded(codes="la la la"))


# -- write, polish, listen, show ---------------------------------------------------------------------------------------


def check_one_line_becomes_a_song(world: World) -> None:
    written = write()
    meta = written.metadata
    assert written.caption and written.lyrics and None not in (meta.bpm, meta.key, meta.time_signature, meta.duration)
    all_differ(written, *(write(**change) for change in ({"idea": "night"}, {"seed": 4}, {"temperature": 0.2})))
    assert write(language="French").metadata.language == "fr"
    assert not re.search(r"^[^\[]", write(instrumental=True).lyrics, re.MULTILINE)
    lasting = write(duration=12.5)
    assert lasting.metadata.duration == 12.5 and lasting.lyrics != written.lyrics  # the planner was told


def check_polishing_keeps_what_the_user_set(world: World) -> None:
    rough = song(bpm=77, key="Bb minor")

    def polished(seed: int = 1, temperature: float = 0.85) -> Song:
        return PolishNode.execute(planner(), rough, seed, temperature).args[0]

    result = polished()
    assert (result.metadata.bpm, result.metadata.key, result.metadata.duration) == (77, "Bb minor", SECONDS)
    assert result.caption != rough.caption and result.metadata.time_signature
    all_differ(result, polished(seed=2), polished(temperature=0.2))


def listen(**inputs: object) -> tuple[Song, str]:
    return ListenNode.execute(planner(), **{"seed": 0, "temperature": 0.3, **inputs}).args


def check_listening_tells_what_a_recording_is(world: World) -> None:
    written = codes()
    found, same = listen(codes=written)
    assert same == written and found.caption and found.metadata.bpm and found.metadata.duration == SECONDS
    all_differ(found, listen(codes=written, seed=1)[0], listen(codes=codes(seed=6))[0])
    two = f"{written}\n{codes(seed=6)}"
    with shown() as notes:
        assert listen(codes=two) == (found, written)
    note, pace = notes[-1].splitlines()  # what it writes meanwhile does not take the note's place
    assert note == "only the first of the 2 songs is listened to" and pace.endswith(" tokens/s")
    nothing = {"codes": "", "model": world.model, "audio": SOURCE, "vae": world.vae}  # from a plan without codes
    assert "from 0 to 299 in this planner" in refusal(lambda: listen(**nothing))
    assert "the codes are empty" in refusal(lambda: listen(codes=" "))
    assert "these are no audio codes" in refusal(lambda: listen(codes="<audio 7>"))
    assert "from 0 to 299 in this planner, got 63999" in refusal(lambda: listen(codes="1, 63999"))
    assert "listening to audio needs a model" in refusal(lambda: listen(audio=SOURCE, vae=world.vae))
    assert "there is no song to work on" in refusal(lambda: listen(model=world.model))


def check_a_recording_is_heard_through_the_models_codes(world: World) -> None:
    """Nano's codes go beyond those of this planner, which only shows that they arrive."""
    sentence = refusal(lambda: listen(model=world.model, audio=SOURCE, vae=world.vae))
    assert "from 0 to 299 in this planner" in sentence


def check_what_a_plan_ignores_is_said(world: World) -> None:
    whole = song(bpm=90, key="C major", time_signature="4")
    cases = [
        ({"negative": "drums", "guidance": 1.0}, "negative is ignored: it needs guidance above 1"),
        ({"wanted": whole}, "the caption stays as it is: the song has all its facts, so there is nothing to think out"),
        (
            {"write_codes": False, "batch_size": 2, "best_of": 2, "negative": "drums", "first_layout": True},
            "without codes these change nothing: batch_size, best_of, negative, first_layout",
        ),
    ]
    for inputs, said in cases:
        with shown() as texts:
            plans(**inputs)
        assert texts[-1].splitlines()[0] == said, texts[-1]
    with shown() as texts:
        plans(negative="drums", write_codes=True)
    assert "\n" not in texts[-1]


def check_show_song_shows_and_passes_on(world: World) -> None:
    whole = Song("slow jazz", "[Verse]\nhello", Metadata(90, "F# minor", "6", "fr", 30.5))
    output = ShowSongNode.execute(whole)
    text = "slow jazz\n\n90 BPM · F# minor · 6/8 · French · 30.5 s\n\n[Verse]\nhello"
    assert output.args == (whole, text) and output.ui.as_dict() == {"text": (text,)}
    assert ShowSongNode.execute(Song("slow jazz")).args[1] == "slow jazz\n\n[Instrumental]"


# -- a good neighbour --------------------------------------------------------------------------------------------------


def check_the_list_has_planners_and_no_text_encoder(world: World) -> None:
    assert NAME in files.offered(Kind.PLANNER) and NAME not in files.offered(Kind.TEXT_ENCODER)
    assert NAME not in files.offered(Kind.NETWORK)
    assert not [name for name in files.offered(Kind.PLANNER) if "Qwen3-Embedding" in name]


def check_a_folder_that_cannot_be_read_costs_no_other(world: World) -> None:
    usual, closed = Path.iterdir, Path.cwd() / "models" / "lost+found"

    def iterdir(folder: Path):
        if folder == closed:
            raise PermissionError(13, "Permission denied", folder)
        return usual(folder)

    closed.mkdir()
    Path.iterdir = iterdir
    try:
        assert NAME in files.offered(Kind.PLANNER)
    finally:
        Path.iterdir = usual
        closed.rmdir()


def check_stop_ends_within_one_token(world: World) -> None:
    whole = codes()
    network = planner().network
    for number in (1, 2, 9):
        with counted(network, stop_at(number)) as calls:
            assert interrupted(codes)
        assert calls[0] == number
        assert alive(Cache) == 0
    for work in (write, lambda: listen(codes=whole), lambda: plan(write_codes=False)):
        with counted(network, stop_at(7)) as calls:
            assert interrupted(work)
        assert calls[0] == 7 and alive(Cache) == 0
    assert codes() == whole


def check_stop_while_loading(world: World) -> None:
    networks = alive(PlannerNetwork)
    stop_when_shown(1)
    assert interrupted(load)
    assert alive(PlannerNetwork) == networks and mm.current_loaded_models == []
    comfy.utils.set_progress_bar_global_hook(None)


def check_unload_models_frees_the_planner(world: World) -> None:
    placed = load()
    plan(placed=placed)
    assert [loaded.model for loaded in mm.current_loaded_models] == [placed.patcher]
    assert alive(Cache) == 0
    mm.load_models_gpu([placed.patcher])
    assert placed.patcher.loaded_size() > 0
    mm.unload_all_models()
    assert mm.current_loaded_models == [] and placed.patcher.loaded_size() == 0
    network = weakref.ref(placed.network)
    del placed
    gc.collect()
    assert network() is None


def check_every_dtype_writes(world: World) -> None:
    for dtype, kind in (("bfloat16", torch.bfloat16), ("float16", torch.float16), ("auto", torch.float32)):
        placed = load(dtype)
        assert placed.network.dtype == kind
        assert len(parse_codes(codes(placed=placed, temperature=0.0))) == CODES
    assert "unknown dtype 'int3'" in refusal(lambda: load("int3"))


def check_where_and_how_fast_is_said(world: World) -> None:
    logging.getLogger("acestep").setLevel(logging.INFO)
    try:
        with shown() as texts:
            codes(batch_size=2)
        assert re.fullmatch(rf"{2 * CODES} tokens, \d+ tokens/s", texts[-1].splitlines()[-1])
        with shown() as texts:
            plan(write_codes=False)
    finally:
        logging.getLogger("acestep").setLevel(logging.NOTSET)
    assert world.log.lines.count("planner on cpu") == 2
    tokens = int(re.fullmatch(r"(\d+) tokens, \d+ tokens/s", texts[-1])[1])
    (logged,) = [int(m[1]) for line in world.log.lines if (m := re.match(r"plan: (\d+) tokens of text", line))]
    assert tokens == logged


# -- bad input ---------------------------------------------------------------------------------------------------------


def check_what_is_no_planner_is_refused_before_the_run(world: World) -> None:
    said = LoadPlannerNode.validate_inputs("acestep/text-encoder")
    assert "Qwen3-Embedding-0.6B: its vocabulary has 151669 rows; a planner LM has 217204" in said
    said = LoadPlannerNode.validate_inputs("acestep/odd")
    assert "no planner LM that is known here: its vocabulary has 1000 rows" in said
    assert "'gone' is not there" in LoadPlannerNode.validate_inputs("acestep/gone")
    assert "choose one from" in LoadPlannerNode.validate_inputs("acestep/../secret")
    assert "planner folders into models/acestep" in LoadPlannerNode.validate_inputs(files.HINTS[Kind.PLANNER])
    assert LoadPlannerNode.validate_inputs(NAME) is True


def check_a_prompt_beyond_the_context_is_refused(world: World) -> None:
    lyrics = "\n".join(["la la la"] * 1000)
    sentence = refusal(lambda: plan(replace(song(), lyrics=lyrics)))
    assert re.search(r"the planner's context holds \d+ tokens, but the prompt has \d+", sentence)
    assert alive(Cache) == 0
