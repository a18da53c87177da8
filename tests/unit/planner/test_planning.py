"""plan and plan_codes, on a tiny random planner and with prepared answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, RequestError
from acestep_core.planner import chat_prompts as prompts
from acestep_core.planner.load_planner import Planner
from acestep_core.planner.metadata_text import write_block
from acestep_core.planner.planning import CODING, code_count, ignored_options, plan, plan_codes
from acestep_core.planner.token_sampling import TokenSampling
from acestep_core.song.song import INSTRUMENTAL, Metadata, Song
from tests.support import tiny_planner, tiny_text

tiny_tokenizer_dir, vocabulary, network = tiny_text.tiny_tokenizer_dir, tiny_planner.vocabulary, tiny_planner.planner
fake_decoder = tiny_planner.fake_decoder

METADATA = Metadata(bpm=90, key="C major", time_signature="3", duration=12)
SONG = Song("slow piano", "[Verse]\nriver", replace(METADATA, language="en"))
BLOCK = """bpm: 120
caption: A calm piano.
duration: 30
keyscale: F# minor
language: de
timesignature: 4"""


@pytest.fixture(scope="module")
def planner(network, vocabulary) -> Planner:
    return Planner(network, vocabulary)


# --- plan -------------------------------------------------------------------------------------------------------------


def test_plan_fills_the_gaps(planner, fake_decoder):
    fake_decoder.prepare(BLOCK)
    (planned,) = plan(planner, Song("piano", "[Verse]\nla"), [5])
    assert planned.song == Song("A calm piano.", "[Verse]\nla", Metadata(120, "F# minor", "4", "de", 30))
    assert planned.request == Song("piano", "[Verse]\nla")
    assert write_block(planned.block) == BLOCK
    (row,) = fake_decoder.rows
    assert row.prompt == prompts.plan_prompt(planner.vocabulary, "piano", "[Verse]\nla")
    assert (row.seed, row.negative_prompt) == (5, None)
    assert row.grammar.fields == ("bpm", "caption", "duration", "keyscale", "language", "timesignature")
    assert fake_decoder.sampling == [TokenSampling(0.85, 0.9, 0, 1.0)]


def test_plan_keeps_the_users_metadata(planner, fake_decoder):
    fake_decoder.prepare(BLOCK)
    (planned,) = plan(planner, Song("piano", "la", Metadata(bpm=90, language="fr", duration=7.5)), [0])
    assert planned.song.metadata == Metadata(90, "F# minor", "4", "fr", 7.5)


def test_caption_and_language_are_optional(planner, fake_decoder):
    fake_decoder.prepare("bpm: 120\nduration: 30")
    song = Song("piano", "la", Metadata(language="fr"))
    (planned,) = plan(planner, song, [0], rewrite_caption=False, choose_language=False)
    assert planned.song == Song("piano", "la", Metadata(bpm=120, duration=30, language="fr"))
    assert fake_decoder.rows[0].grammar.fields == ("bpm", "duration", "keyscale", "timesignature")


def test_song_with_complete_metadata_is_not_planned(planner, fake_decoder):
    (planned,) = plan(planner, SONG, [0])
    assert fake_decoder.rows == [] and planned.song == planned.request == SONG
    assert planned.block == {"bpm": 90, "duration": 12, "keyscale": "C major", "language": "en", "timesignature": 3}
    fake_decoder.prepare(BLOCK)
    first, second = plan(planner, [SONG, Song("x")], [1, 2])
    assert first.song == SONG and second.song.metadata.bpm == 120
    assert [row.seed for row in fake_decoder.rows] == [2]


def test_instrumental_has_the_trained_lyrics_in_the_prompt(planner, fake_decoder):
    fake_decoder.prepare(BLOCK)
    plan(planner, Song("piano", ""), [0])
    assert fake_decoder.prompt().count(f"# Lyric\n{INSTRUMENTAL}\n") == 1


def test_random_planner_keeps_the_users_metadata(planner):
    given = Metadata(bpm=77, key="E♭ minor", language="no")
    planned = plan(planner, [Song("piano", "la", given), Song("drum")], [3, 4])
    for item in planned:
        assert None not in (item.song.metadata.bpm, item.song.metadata.key, item.song.metadata.duration)
        assert item.song.metadata.language is not None and item.song.caption
        assert list(item.block) == sorted(item.block) and "genres" not in item.block
    assert planned[0].song.metadata.bpm == planned[0].block["bpm"] == 77
    assert (planned[0].song.metadata.key, planned[0].song.metadata.language) == ("Eb minor", "no")
    assert plan(planner, Song("drum"), [4]) == planned[1:]


# --- codes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "count"), [(0.01, 1), (1, 5), (10, 50), (10.1, 51), (12, 60), (600, 3000)])
def test_code_count(seconds, count):
    assert code_count(seconds) == count


def test_codes_of_a_planned_song(planner, fake_decoder):
    fake_decoder.prepare(BLOCK)
    (planned,) = plan(planner, Song("piano", "la"), [5])
    fake_decoder.answers.append(planner.vocabulary.code_ids([7] * 150))
    assert plan_codes(planner, planned, [5]) == [(7,) * 150]
    row = fake_decoder.rows[-1]
    # The request has the user's caption, the reasoning has the planner's.
    assert row.prompt == prompts.codes_prompt(planner.vocabulary, "piano", "la", BLOCK)
    assert row.negative_prompt == prompts.unconditional_prompt(planner.vocabulary)
    assert row.count == 150
    assert fake_decoder.sampling[-1] == TokenSampling(0.85, 0.9, 0, 2.0)


def test_codes_of_a_song_without_a_plan(planner, fake_decoder):
    fake_decoder.answers += [planner.vocabulary.code_ids([1] * 60)] * 2
    plan_codes(planner, SONG, [5], negative_prompt="noise")
    block = "bpm: 90\nduration: 12\nkeyscale: C major\nlanguage: en\ntimesignature: 3"
    (row,) = fake_decoder.rows
    assert row.prompt == prompts.codes_prompt(planner.vocabulary, SONG.caption, SONG.lyrics, block)
    assert row.negative_prompt == prompts.unconditional_prompt(planner.vocabulary, "noise")
    plan_codes(planner, Song("x", metadata=Metadata(duration=12)), [5])
    expected = prompts.codes_prompt(planner.vocabulary, "x", INSTRUMENTAL, "duration: 12")
    assert fake_decoder.rows[-1].prompt == expected


def test_codes_of_a_short_song_are_cut_from_longer_ones(planner, fake_decoder):
    fake_decoder.answers.append(planner.vocabulary.code_ids(range(50)))
    assert plan_codes(planner, Song("x", metadata=Metadata(duration=1.5)), [0]) == [tuple(range(8))]
    assert fake_decoder.rows[0].count == 50


def test_codes_need_a_duration(planner):
    with pytest.raises(RequestError, match="duration"):
        plan_codes(planner, Song("x"), [0])


def test_codes_do_not_depend_on_other_rows(planner):
    long = replace(SONG, metadata=replace(METADATA, duration=13.3))
    both = plan_codes(planner, [SONG, long], [1, 2])
    assert [len(row) for row in both] == [60, 67]
    assert all(0 <= code < planner.vocabulary.codes for row in both for code in row)
    assert plan_codes(planner, long, [2]) == both[1:]
    assert plan_codes(planner, SONG, [2]) != both[:1]


def test_negative_prompt_needs_guidance(planner):
    def codes(**options):
        return plan_codes(planner, SONG, [1], **options)

    off = replace(CODING, guidance=1.0)
    assert codes(sampling=off) == codes(sampling=off, negative_prompt="noise")
    assert codes() != codes(negative_prompt="noise")


def test_ignored_options():
    def ignored(song: Song = Song("x"), **options):  # noqa: B008 - a frozen dataclass
        return ignored_options(song, **{"rewrite_caption": True, "guidance": 2.0, **options})

    assert ignored(negative_prompt="noise") == []
    (sentence,) = ignored(negative_prompt="noise", guidance=1.0)
    assert "negative prompt" in sentence and "guidance" in sentence
    (sentence,) = ignored(SONG)
    assert "caption" in sentence
    assert ignored(SONG, rewrite_caption=False) == []
    (sentence,) = ignored(negative_prompt="noise", guidance=1.0, without_codes=["best_of", "guidance"])
    assert sentence.startswith("best_of, guidance:")


# --- all functions ----------------------------------------------------------------------------------------------------


def test_number_of_songs_must_fit_the_seeds(planner):
    for function in (plan, plan_codes):
        with pytest.raises(RequestError, match="songs: got 2 for 3 seeds"):
            function(planner, [SONG, SONG], [1, 2, 3])
        with pytest.raises(RequestError, match="songs: got 1 for 0 seeds"):
            function(planner, SONG, [])


def test_song_beyond_the_context_is_refused(planner):
    with pytest.raises(RequestError, match="context of 2048"):
        plan(planner, Song("x", "la na " * 3000), [0])
    with pytest.raises(RequestError, match="context of 2048"):
        plan_codes(planner, Song("x", metadata=Metadata(duration=600)), [0])


@pytest.mark.parametrize(("function", "song", "stage"), [(plan, Song("x"), "plan"), (plan_codes, SONG, "codes")])
def test_stage_of_reports_and_of_a_stop(planner, function, song, stage):
    reports = []
    with pytest.raises(Cancelled, match=f"{stage}$"):
        function(planner, song, [0], callbacks=Callbacks(reports.append, lambda: len(reports) == 3))
    assert {report.stage for report in reports} == {stage}
    with pytest.raises(Cancelled, match=f"{stage}$"):
        function(planner, song, [0], callbacks=Callbacks(cancelled=lambda: True))


def test_weights_are_not_left_in_inference_mode(planner):
    plan(planner, Song("x"), [0])
    assert not any(parameter.is_inference() for parameter in planner.network.parameters())
    assert not torch.is_inference_mode_enabled()
