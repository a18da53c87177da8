from __future__ import annotations

import re
import sys

import pytest

from acestep_core.lyrics.check import check_lyrics, estimate_duration, lyric_language
from acestep_core.lyrics.scripts import count_syllables, split_words
from acestep_core.lyrics.structure import kind_of, parse_lyrics
from acestep_core.song.song import Metadata, Song
from tests.support import tiny_text

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder

GOOD = "\n".join(
    [
        "[Intro]",
        "[Verse 1]",
        *["walking slowly by the river"] * 4,
        "[Chorus - soft]",
        *["oh the fire in your heart"] * 4,
    ]
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, my (dear) friend!", ["Hello,", "my", "(dear)", "friend!"]),
        ("don't well-known", ["don't", "well-known"]),
        ("你好，世界", ["你", "好，", "世", "界"]),
        ("きょうは「サビ」だ", ["きょ", "う", "は", "「サ", "ビ」", "だ"]),
        ("カーテン", ["カー", "テ", "ン"]),
        ("love你 안녕 세상", ["love", "你", "안녕", "세상"]),
        ("สวัสดี ครับ", ["สวัสดี", "ครับ"]),
        ("می‌خواهم", ["می‌خواهم"]),
        ("", []),
    ],
)
def test_words(text, words):
    assert [text[start:end] for start, end in split_words(text)] == words


@pytest.mark.parametrize(
    ("text", "count"),
    [("walking by the river", 6), ("love", 1), ("naïve café", 4), ("你好世界", 4), ("きょう", 2), 
     ("안녕 세상", 4), ("Привет", 2), ("!", 0)],
)  # fmt: skip
def test_syllables(text, count):
    assert count_syllables(text) == count


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[Chorus]\n你好世界", "zh"), ("[サビ]\nきょうは雨", "ja"), ("안녕 세상 baby", "ko"), ("สวัสดี", "th"),
        ("שלום", "he"),
        ("γεια σου", "el"), ("நன்றி", "ta"), ("hello", None), ("Привет", None), ("नमस्ते", None), ("مرحبا", None),
        ("我哋喺度唱歌", None), ("walking 안 by the river", None), ("", None),
    ],
)  # fmt: skip
def test_a_script_of_one_language_shows_it(text, code):
    assert lyric_language(text) == code


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Chorus 2", "chorus"), ("Verse2", "verse"), ("Final Chorus", "chorus"), ("Pre-Chorus", "pre-chorus"),
     ("副歌", "chorus"),
     ("Guitar Solo", "instrumental"), ("Fade Out", "outro"), ("Versee", None), ("whispered", None)],
)  # fmt: skip
def test_kinds_of_sections(name, kind):
    assert kind_of(name) == kind


def test_tags_are_sections_and_repeats_are_numbered():
    structure = parse_lyrics(
        "[Verse] la [oh] la\n[Chorus]\n[powerful]\nlove\n[Solo]\n[Chorus - soft]\nlove\n[Part X]\nla"
    )
    assert [section.label for section in structure.sections] == ["Verse", "Chorus 1", "Solo", "Chorus 2", "Part X"]
    assert [(line.text, line.section) for line in structure.lines] == [
        ("la la", 0),
        ("love", 1),
        ("love", 3),
        ("la", 4),
    ]


def notes(lyrics, **metadata):
    return check_lyrics(Song("", lyrics, Metadata(**metadata)))


def test_good_lyrics_have_no_notes():
    assert notes(GOOD, language="en", duration=60) == () == notes("", duration=10) == notes("[Instrumental]")
    assert notes("[Verse]\n你好世界\n我爱你", language="zh") == ()


@pytest.mark.parametrize(
    ("lyrics", "metadata", "words"),
    [
        ("[Verse]\n你好世界", {}, ["language", "Chinese", "zh"]),
        ("[Verse]\n안녕 세상", {"language": "en"}, ["Korean", "is en"]),
        ("[Verse]\nla\n你 好 世界", {"language": "zh"}, ["line 3", "spaces"]),
        ("[Verse\nla la", {}, ["line 1", "not closed"]),
        ("[Vers]\nla la", {}, [r"\[Vers\]", r"\[Verse\]"]),
        ("[Xyzzy]\nla la", {}, [r"\[Xyzzy\]", "may be sung"]),
        ("[]\nla", {}, ["empty"]),
        ("[Chorus - anthemic - stacked harmonies - high energy - epic]\nla", {}, ["long", "caption"]),
        ("[Verse]\nla\nla\n" * 5, {}, ["5 tags", "2 lines"]),
        (GOOD, {"duration": 10}, ["syllables", "10 seconds", "4 a second", "40 seconds"]),
    ],
)
def test_each_problem_has_one_note(lyrics, metadata, words):
    (note,) = notes(lyrics, **metadata)
    for word in words:
        assert re.search(word, note), note


def test_lyrics_beyond_the_limit_say_where_they_are_cut(tiny_encoder):
    song = Song("", "[Verse]\n" + "slow river ocean\n" * 900, Metadata())
    (note,) = check_lyrics(song, tiny_encoder.tokenizer)
    assert "slow river" in note and "line" in note and "tokens" in note


def test_the_duration_grows_with_the_lyrics():
    assert estimate_duration(GOOD) == 40
    assert estimate_duration(GOOD + "\n[Solo]\n" + GOOD) == 85
    assert estimate_duration("la") == 15 and estimate_duration("") == 60
    assert estimate_duration("la la la la\n" * 900) == 600
    assert estimate_duration("[Verse]\n" + "你好世界我爱你\n" * 8) % 5 == 0


def work_of(lyrics):
    """Return the number of lines that a check runs, plus the sizes of the lists and texts in its variables."""
    lines, values = 0, {}

    def trace(frame, event, argument):
        nonlocal lines
        lines += 1
        values.update((id(value), value) for value in frame.f_locals.values() if isinstance(value, (list, str)))
        return trace

    tracer = sys.gettrace()
    sys.settrace(trace)
    try:
        check_lyrics(Song("", lyrics, Metadata(duration=10)))
    finally:
        sys.settrace(tracer)
    return lines + sum(map(len, values.values()))


@pytest.mark.parametrize("part", ["la ", "[Verse]\nla\n", "[Verse] la ", "你"])
def test_lyrics_of_twice_the_length_take_twice_the_work(part):
    assert work_of(part * 400) < 2.5 * work_of(part * 200)
