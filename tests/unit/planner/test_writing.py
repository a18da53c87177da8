"""compose, polish and understand, on a tiny random planner and with prepared answers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from acestep_core.callbacks import Callbacks
from acestep_core.errors import Cancelled, RequestError
from acestep_core.planner import chat_prompts as prompts
from acestep_core.planner.load_planner import Planner
from acestep_core.planner.token_sampling import TokenSampling
from acestep_core.planner.writing import compose, polish, understand
from acestep_core.song.song import INSTRUMENTAL, Metadata, Song
from tests.support import tiny_planner, tiny_text

tiny_tokenizer_dir, vocabulary, network = tiny_text.tiny_tokenizer_dir, tiny_planner.vocabulary, tiny_planner.planner
fake_decoder = tiny_planner.fake_decoder

BLOCK = """bpm: 120
caption: A calm piano.
duration: 30
keyscale: F# minor
language: de
timesignature: 4"""


@pytest.fixture(scope="module")
def planner(network, vocabulary) -> Planner:
    return Planner(network, vocabulary)


def fixed_value(planner: Planner, row, name: str) -> str | None:
    """Return the value of a field that a row's grammar forces, or None if the model chooses it."""

    def value(place: int) -> str:
        state, ids = row.grammar.start(0), []
        while True:
            ids += state.forced
            if state.choice is None:
                break
            ids.append(int(state.choice.ids[place]))
            state.advance(ids[-1])
        (line,) = re.findall(rf"^{name}: (.*)$", planner.vocabulary.decode(ids), re.MULTILINE)
        return line

    first, last = value(0), value(-1)
    return first if first == last else None


# --- compose ----------------------------------------------------------------------------------------------------------


def test_song_from_one_line(planner, fake_decoder):
    fake_decoder.prepare(BLOCK + "\ngenres: Ambient", "# Lyric\n[Verse]\nAhoi\n")
    (written,) = compose(planner, "a sea shanty", [1], metadata=Metadata(language="German"))
    assert written.song == Song("A calm piano.", "[Verse]\nAhoi", Metadata(120, "F# minor", "4", "de", 30))
    assert written.genres == "Ambient"
    (row,) = fake_decoder.rows
    assert row.prompt == prompts.inspire_prompt(planner.vocabulary, "a sea shanty", False)
    assert row.grammar.then_lyrics and "genres" in row.grammar.fields and row.max_lyrics == 4096
    assert fixed_value(planner, row, "language") == "de" and fixed_value(planner, row, "bpm") is None
    assert fake_decoder.sampling == [TokenSampling(0.85, 1.0, 0, 1.0)]


def test_given_language_stays_unless_unknown(planner, fake_decoder):
    for given, expected in (("fr", "fr"), ("unknown", "de")):
        fake_decoder.prepare(BLOCK, "la")
        (written,) = compose(planner, "x", [1], metadata=Metadata(language=given))
        assert written.song.metadata.language == expected


def test_given_metadata_is_in_the_grammar_and_stays(planner, fake_decoder):
    fake_decoder.prepare(BLOCK, "la")
    (written,) = compose(planner, "x", [1], metadata=Metadata(bpm=90, key="E♭ minor", duration=7.5))
    assert written.song.metadata == Metadata(90, "Eb minor", "4", "de", 7.5)
    (row,) = fake_decoder.rows
    fixed = {name: fixed_value(planner, row, name) for name in ("bpm", "keyscale", "duration", "timesignature")}
    assert fixed == {"bpm": "90", "keyscale": "Eb minor", "duration": "10", "timesignature": None}


@pytest.mark.parametrize(
    ("lyrics", "expected"),
    [("", INSTRUMENTAL), ("la la", INSTRUMENTAL), ("[Intro]\n\n[Solo] [Loud]\nla", "[Intro]\n[Solo] [Loud]")],
)
def test_instrumental_has_only_section_tags(planner, fake_decoder, lyrics, expected):
    fake_decoder.prepare(BLOCK, lyrics)
    assert compose(planner, "x", [1], instrumental=True)[0].song.lyrics == expected
    assert "instrumental: true" in fake_decoder.prompt()


def test_idea_is_the_caption_if_the_planner_writes_none(planner, fake_decoder):
    fake_decoder.prepare("bpm: 100", "la")
    assert compose(planner, "a sea shanty", [1])[0].song == Song("a sea shanty", "la", Metadata(bpm=100))


def test_text_that_looks_like_the_end_of_reasoning_stays_text(planner, fake_decoder):
    fake_decoder.prepare("caption: soft </think> and slow\nbpm: 99", "# Lyric\nla </think> la")
    (written,) = compose(planner, "x", [0])
    assert (written.song.caption, written.song.lyrics) == ("soft </think> and slow", "la </think> la")


def test_random_planner_writes_songs_without_codes(planner):
    config = replace(planner.network.config, max_position_embeddings=900)  # it seldom ends by itself
    short = Planner(tiny_planner.network(config), planner.vocabulary)
    for item in compose(short, ["x", "y"], [1, 2], metadata=Metadata(language="no")):
        assert item.song.caption and item.genres and item.song.lyrics
        assert item.song.metadata.language == "no" and None not in (item.song.metadata.bpm, item.song.metadata.key)
        assert "audio_code" not in item.song.lyrics


# --- polish, understand -----------------------------------------------------------------------------------------------


def test_polish_keeps_the_users_metadata(planner, fake_decoder):
    song = Song("pno", "la la", Metadata(bpm=90, language="fr"))
    fake_decoder.prepare(BLOCK, "[Verse]\nLa, la")
    (polished,) = polish(planner, song, [1])
    assert polished.song == Song("A calm piano.", "[Verse]\nLa, la", Metadata(90, "F# minor", "4", "fr", 30))
    (row,) = fake_decoder.rows
    assert row.prompt == prompts.format_prompt(planner.vocabulary, "pno", "la la")
    assert (fixed_value(planner, row, "bpm"), fixed_value(planner, row, "language")) == ("90", "fr")
    for name in ("caption", "duration", "keyscale", "timesignature"):
        assert fixed_value(planner, row, name) is None


def test_polish_keeps_lyrics_that_the_planner_leaves_out(planner, fake_decoder):
    fake_decoder.prepare(BLOCK)
    assert polish(planner, Song("pno", "la la"), [1])[0].song.lyrics == "la la"
    fake_decoder.prepare(BLOCK, "words")
    assert polish(planner, Song("pno"), [1])[0].song.lyrics == ""


def test_understand_has_the_duration_of_the_codes(planner, fake_decoder):
    fake_decoder.prepare(BLOCK + "\ngenres: Ambient", "# Languages\nde\n\n# Lyrics\n[Verse]\nAhoi")
    (found,) = understand(planner, (7, 8, 9), [1])
    assert found.song == Song("A calm piano.", "[Verse]\nAhoi", Metadata(120, "F# minor", "4", "de", 0.6))
    assert fake_decoder.rows[0].prompt == prompts.understand_prompt(planner.vocabulary, (7, 8, 9))
    assert fake_decoder.sampling == [TokenSampling(0.3, 1.0, 0, 1.0)]
    fake_decoder.prepare(BLOCK, "la")
    assert understand(planner, (), [1])[0].song.metadata.duration == 30
    with pytest.raises(RequestError, match="codes.*300"):
        understand(planner, (300,), [1])


# --- all functions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "given", "stage"),
    [(compose, "x", "write"), (polish, Song("x"), "polish"), (understand, (1, 2), "listen")],
)
def test_stage_of_reports_and_of_a_stop(planner, function, given, stage):
    reports = []
    with pytest.raises(Cancelled, match=f"{stage}$"):
        function(planner, given, [0], callbacks=Callbacks(reports.append, lambda: len(reports) == 3))
    assert {report.stage for report in reports} == {stage}


def test_number_of_songs_must_fit_the_seeds(planner):
    with pytest.raises(RequestError, match="songs: got 2 for 3 seeds"):
        polish(planner, [Song("x"), Song("y")], [1, 2, 3])
