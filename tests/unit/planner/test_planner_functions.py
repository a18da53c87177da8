"""The five functions: on a tiny random planner whatever it says, and with answers put into its mouth."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, RequestError
from acestep_core.planner import chat_prompts as prompts
from acestep_core.planner import functions
from acestep_core.planner.functions import code_count, codes, compose, plan, polish, understand
from acestep_core.planner.load_planner import Planner
from acestep_core.planner.metadata_text import write_block
from acestep_core.planner.token_sampling import Sampling
from acestep_core.song.song import INSTRUMENTAL, Metadata, Song
from tests.support import tiny_planner, tiny_text

tiny_tokenizer_dir, vocabulary, network = tiny_text.tiny_tokenizer_dir, tiny_planner.vocabulary, tiny_planner.planner

METADATA_FIELDS = Metadata(bpm=90, key="C major", time_signature="3", duration=12)
SONG = Song("slow piano", "[Verse]\nriver", replace(METADATA_FIELDS, language="en"))


@pytest.fixture(scope="module")
def planner(network, vocabulary) -> Planner:
    return Planner(network, vocabulary)


class Mouth:
    """Stands in for the decoding loop: says what it is told, and notes what it was asked."""

    def __init__(self, vocabulary):
        self.vocabulary, self.rows, self.sampling, self.answers = vocabulary, [], [], []

    def say(self, block: str, lyrics: str | None = None) -> None:
        words = self.vocabulary
        rest = [] if lyrics is None else words.encode(f"\n\n{lyrics}")
        self.answers.append([words.think, *words.encode(f"\n{block}\n"), words.think_end, *rest])

    def __call__(self, network, vocabulary, rows, *, sampling, **_):
        self.rows += rows
        self.sampling.append(sampling)
        return [self.answers.pop(0) for _ in rows]

    def prompt(self, i: int = 0) -> str:
        """A prompt as text, control tokens and codes left out."""
        return self.vocabulary.decode(self.rows[i].prompt)


@pytest.fixture
def mouth(monkeypatch, vocabulary) -> Mouth:
    mouth = Mouth(vocabulary)
    monkeypatch.setattr(functions, "generate", mouth)
    return mouth


def forced(planner: Planner, row, name: str) -> str | None:
    """The value of a field that a row's grammar insists on, whatever the model would choose; None if it leaves it."""

    def value(place: int) -> str:
        state, written = row.grammar.start(0), []
        while True:
            written += state.forced
            if state.choice is None:
                break
            written.append(int(state.choice.ids[place]))
            state.take(written[-1])
        (line,) = re.findall(rf"^{name}: (.*)$", planner.vocabulary.decode(written), re.MULTILINE)
        return line

    first, last = value(0), value(-1)
    return first if first == last else None


THOUGHT = """bpm: 120
caption: A calm piano.
duration: 30
keyscale: F# minor
language: de
timesignature: 4"""


# Plan


def test_a_plan_fills_what_was_left_open(planner, mouth):
    mouth.say(THOUGHT)
    (planned,) = plan(planner, Song("piano", "[Verse]\nla"), [5])
    assert planned.song == Song("A calm piano.", "[Verse]\nla", Metadata(120, "F# minor", "4", "de", 30))
    assert planned.asked == Song("piano", "[Verse]\nla")
    assert write_block(planned.block) == THOUGHT
    assert mouth.rows[0].prompt == prompts.plan_prompt(planner.vocabulary, "piano", "[Verse]\nla")
    assert (mouth.rows[0].seed, mouth.rows[0].negative) == (5, None)
    assert mouth.rows[0].grammar.fields == ("bpm", "caption", "duration", "keyscale", "language", "timesignature")
    assert mouth.sampling == [Sampling(0.85, 0.9, 0, 1.0)]


def test_what_the_user_gave_is_never_overwritten(planner, mouth):
    given = Metadata(bpm=90, language="fr", duration=7.5)
    mouth.say(THOUGHT)
    (planned,) = plan(planner, Song("piano", "la", given), [0])
    assert planned.song.metadata == Metadata(90, "F# minor", "4", "fr", 7.5)


def test_the_caption_and_the_language_may_be_left_alone(planner, mouth):
    mouth.say("bpm: 120\nduration: 30")
    song = Song("piano", "la", Metadata(language="fr"))
    (planned,) = plan(planner, song, [0], rewrite=False, language=False)
    assert planned.song == Song("piano", "la", Metadata(bpm=120, duration=30, language="fr"))
    assert mouth.rows[0].grammar.fields == ("bpm", "duration", "keyscale", "timesignature")


def test_a_song_with_all_facts_is_not_planned(planner, mouth):
    (planned,) = plan(planner, SONG, [0])
    assert mouth.rows == [] and planned.song == planned.asked == SONG
    assert planned.block == {"bpm": 90, "duration": 12, "keyscale": "C major", "language": "en", "timesignature": 3}
    mouth.say(THOUGHT)
    first, second = plan(planner, [SONG, Song("x")], [1, 2])
    assert first.song == SONG and second.song.metadata.bpm == 120
    assert [row.seed for row in mouth.rows] == [2]


def test_an_instrumental_is_asked_for_in_the_trained_words(planner, mouth):
    mouth.say(THOUGHT)
    plan(planner, Song("piano", ""), [0])
    assert mouth.prompt().count(f"# Lyric\n{INSTRUMENTAL}\n") == 1


def test_a_random_planner_plans_and_keeps_to_what_it_was_given(planner):
    given = Metadata(bpm=77, key="E♭ minor", language="no")
    planned = plan(planner, [Song("piano", "la", given), Song("drum")], [3, 4])
    for item in planned:
        assert None not in (item.song.metadata.bpm, item.song.metadata.key, item.song.metadata.duration)
        assert item.song.metadata.language is not None and item.song.caption
        assert list(item.block) == sorted(item.block) and "genres" not in item.block
    assert planned[0].song.metadata.bpm == planned[0].block["bpm"] == 77
    assert (planned[0].song.metadata.key, planned[0].song.metadata.language) == ("Eb minor", "no")
    assert plan(planner, Song("drum"), [4]) == planned[1:]  # alone as in a batch


# Codes


@pytest.mark.parametrize(("seconds", "count"), [(0.01, 1), (1, 5), (10, 50), (10.1, 51), (12, 60), (600, 3000)])
def test_codes_cover_the_song(seconds, count):
    assert code_count(seconds) == count


def test_codes_of_a_planned_song(planner, mouth):
    mouth.say(THOUGHT)
    (planned,) = plan(planner, Song("piano", "la"), [5])
    mouth.answers.append(planner.vocabulary.code_ids([7] * 150))
    assert codes(planner, planned, [5]) == [(7,) * 150]
    row = mouth.rows[-1]
    # The user's own caption in the request, the planner's in the reasoning.
    assert row.prompt == prompts.codes_prompt(planner.vocabulary, "piano", "la", THOUGHT)
    assert row.negative == prompts.unconditional_prompt(planner.vocabulary)
    assert (row.codes, row.grammar) == (150, None)
    assert mouth.sampling[-1] == Sampling(0.85, 0.9, 0, 2.0)


def test_codes_of_a_song_that_was_not_planned(planner, mouth):
    mouth.answers += [planner.vocabulary.code_ids([1] * 60)] * 2
    codes(planner, SONG, [5], legacy=True, negative="noise")
    block = "bpm: 90\nduration: 12\nkeyscale: C major\nlanguage: en\ntimesignature: 3"
    (row,) = mouth.rows
    assert row.prompt == prompts.codes_prompt(planner.vocabulary, SONG.caption, SONG.lyrics, block, legacy=True)
    assert row.negative == prompts.unconditional_prompt(planner.vocabulary, "noise", (SONG.caption, SONG.lyrics))
    codes(planner, Song("x", metadata=Metadata(duration=12)), [5])
    wanted = prompts.codes_prompt(planner.vocabulary, "x", INSTRUMENTAL, "duration: 12")
    assert mouth.rows[-1].prompt == wanted


def test_codes_of_a_short_song_are_cut_from_a_longer_one(planner, mouth):
    mouth.answers.append(planner.vocabulary.code_ids(range(50)))
    assert codes(planner, Song("x", metadata=Metadata(duration=1.5)), [0]) == [tuple(range(8))]
    assert mouth.rows[0].codes == 50


def test_codes_need_a_duration(planner):
    with pytest.raises(RequestError, match="audio codes need a duration: set one, or let the planner plan"):
        codes(planner, Song("x"), [0])


def test_a_row_of_codes_does_not_depend_on_its_neighbours(planner):
    long = replace(SONG, metadata=replace(METADATA_FIELDS, duration=13.3))
    both = codes(planner, [SONG, long], [1, 2])
    assert [len(row) for row in both] == [60, 67]
    assert all(0 <= code < planner.vocabulary.codes for row in both for code in row)
    assert codes(planner, long, [2]) == both[1:]
    assert codes(planner, SONG, [2]) != both[:1]


def test_no_guidance_is_the_conditional_path(planner):
    plain = replace(functions.CODING, guidance=1.0)
    assert codes(planner, SONG, [1], sampling=plain) == codes(planner, SONG, [1], sampling=plain, negative="noise")
    assert codes(planner, SONG, [1]) != codes(planner, SONG, [1], negative="noise")


# Compose, polish, understand


def test_a_song_from_one_line(planner, mouth):
    mouth.say(THOUGHT + "\ngenres: Ambient", "# Lyric\n[Verse]\nAhoi\n")
    (written,) = compose(planner, "a sea shanty", [1], facts=Metadata(language="German"))
    assert written.song == Song("A calm piano.", "[Verse]\nAhoi", Metadata(120, "F# minor", "4", "de", 30))
    assert written.genres == "Ambient"
    row = mouth.rows[0]
    assert row.prompt == prompts.inspire_prompt(planner.vocabulary, "a sea shanty", False)
    assert row.grammar.then_lyrics and "genres" in row.grammar.fields and row.limit == 4096
    assert forced(planner, row, "language") == "de" and forced(planner, row, "bpm") is None
    assert mouth.sampling == [Sampling(0.85, 1.0, 0, 1.0)]


def test_the_wished_language_stays(planner, mouth):
    mouth.say(THOUGHT, "la")
    assert compose(planner, "x", [1], facts=Metadata(language="fr"))[0].song.metadata.language == "fr"
    mouth.say(THOUGHT, "la")
    assert compose(planner, "x", [1], facts=Metadata(language="unknown"))[0].song.metadata.language == "de"


def test_facts_of_a_song_from_one_line_are_told_and_stay(planner, mouth):
    facts = Metadata(bpm=90, key="E♭ minor", duration=7.5)
    mouth.say(THOUGHT, "la")
    (written,) = compose(planner, "x", [1], facts=facts)
    assert written.song.metadata == Metadata(90, "Eb minor", "4", "de", 7.5)
    row = mouth.rows[0]
    told = {name: forced(planner, row, name) for name in ("bpm", "keyscale", "duration", "timesignature")}
    assert told == {"bpm": "90", "keyscale": "Eb minor", "duration": "10", "timesignature": None}


@pytest.mark.parametrize(
    ("lyrics", "kept"),
    [("", INSTRUMENTAL), ("la la", INSTRUMENTAL), ("[Intro]\n\n[Solo] [Loud]\nla", "[Intro]\n[Solo] [Loud]")],
)
def test_an_instrumental_has_nothing_to_sing(planner, mouth, lyrics, kept):
    mouth.say(THOUGHT, lyrics)
    assert compose(planner, "x", [1], instrumental=True)[0].song.lyrics == kept
    assert "instrumental: true" in mouth.prompt()


def test_an_idea_the_planner_says_nothing_of_is_the_caption(planner, mouth):
    mouth.say("bpm: 100", "la")
    assert compose(planner, "a sea shanty", [1])[0].song == Song("a sea shanty", "la", Metadata(bpm=100))


def test_a_polished_song_keeps_its_facts(planner, mouth):
    song = Song("pno", "la la", Metadata(bpm=90, language="fr"))
    mouth.say(THOUGHT, "[Verse]\nLa, la")
    (polished,) = polish(planner, song, [1])
    assert polished.song == Song("A calm piano.", "[Verse]\nLa, la", Metadata(90, "F# minor", "4", "fr", 30))
    row = mouth.rows[0]
    assert row.prompt == prompts.format_prompt(planner.vocabulary, "pno", "la la")
    # Told to the planner, so that what it chooses goes with them, and not only put in afterwards.
    assert (forced(planner, row, "bpm"), forced(planner, row, "language")) == ("90", "fr")
    assert all(forced(planner, row, name) is None for name in ("caption", "duration", "keyscale", "timesignature"))
    mouth.say(THOUGHT)
    assert polish(planner, song, [1])[0].song.lyrics == "la la"
    mouth.say(THOUGHT, "words")
    assert polish(planner, Song("pno"), [1])[0].song.lyrics == ""


def test_what_codes_are_heard_as(planner, mouth):
    mouth.say(THOUGHT + "\ngenres: Ambient", "# Languages\nde\n\n# Lyrics\n[Verse]\nAhoi")
    (heard,) = understand(planner, (7, 8, 9), [1])
    # The codes are as long as they are, whatever the planner thinks.
    assert heard.song == Song("A calm piano.", "[Verse]\nAhoi", Metadata(120, "F# minor", "4", "de", 0.6))
    assert mouth.rows[0].prompt == prompts.understand_prompt(planner.vocabulary, (7, 8, 9))
    assert mouth.sampling == [Sampling(0.3, 1.0, 0, 1.0)]
    mouth.say(THOUGHT, "la")
    assert understand(planner, (), [1])[0].song.metadata.duration == 30
    with pytest.raises(RequestError, match="from 0 to 299 in this planner, got 300"):
        understand(planner, (300,), [1])


def test_a_random_planner_writes_songs_without_codes(planner):
    config = replace(planner.network.config, max_position_embeddings=900)  # it hardly ever ends by itself
    hasty = Planner(tiny_planner.network(config), planner.vocabulary)
    for item in compose(hasty, ["x", "y"], [1, 2], facts=Metadata(language="no")):
        assert item.song.caption and item.genres and item.song.lyrics
        assert item.song.metadata.language == "no" and None not in (item.song.metadata.bpm, item.song.metadata.key)
        assert "audio_code" not in item.song.lyrics


# At the door


def test_one_song_for_all_seeds_or_one_for_each(planner):
    for call in (plan, codes, polish):
        with pytest.raises(RequestError, match="got 2 songs for 3 seeds; give one for all or one for each"):
            call(planner, [SONG, SONG], [1, 2, 3])
        with pytest.raises(RequestError, match="got 1 songs for 0 seeds"):
            call(planner, SONG, [])


def test_a_song_beyond_the_context_is_refused(planner):
    with pytest.raises(RequestError, match="the planner's context holds 2048 tokens, but the prompt has"):
        plan(planner, Song("x", "la na " * 3000), [0])
    with pytest.raises(RequestError, match="context holds 2048 tokens"):
        codes(planner, Song("x", metadata=Metadata(duration=600)), [0])


def test_a_planner_can_be_stopped(planner):
    with pytest.raises(Cancelled):
        plan(planner, Song("x"), [0], callbacks=Callbacks(cancelled=lambda: True))


@pytest.mark.parametrize(
    ("call", "stage"),
    [
        (lambda planner, callbacks: plan(planner, Song("x"), [0], callbacks=callbacks), "plan"),
        (lambda planner, callbacks: codes(planner, SONG, [0], callbacks=callbacks), "codes"),
        (lambda planner, callbacks: compose(planner, "x", [0], callbacks=callbacks), "write"),
        (lambda planner, callbacks: polish(planner, SONG, [0], callbacks=callbacks), "polish"),
        (lambda planner, callbacks: understand(planner, (1, 2), [0], callbacks=callbacks), "listen"),
    ],
)
def test_what_is_reported_and_stopped_is_called_what_it_is(planner, call, stage):
    reports = []
    callbacks = Callbacks(progress=reports.append, cancelled=lambda: len(reports) == 3)
    with pytest.raises(Cancelled, match=f"^stopped by the user during {stage}$"):
        call(planner, callbacks)
    assert {report.stage for report in reports} == {stage}


def test_text_that_looks_like_the_end_of_reasoning_is_not(planner, mouth):
    mouth.say("caption: soft </think> and slow\nbpm: 99", "# Lyric\nla </think> la")
    (written,) = compose(planner, "x", [0])
    assert (written.song.caption, written.song.lyrics) == ("soft </think> and slow", "la </think> la")


def test_nothing_is_left_marked_as_inference(planner):
    plan(planner, Song("x"), [0])
    assert not any(parameter.is_inference() for parameter in planner.network.parameters())
    assert not torch.is_inference_mode_enabled()
