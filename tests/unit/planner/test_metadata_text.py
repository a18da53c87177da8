"""The reasoning block is written as PyYAML does, and read leniently."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from acestep_core.planner.metadata_text import (
    FIELDS,
    block_metadata,
    merge_metadata,
    read_block,
    song_block,
    write_block,
)
from acestep_core.song.song import Metadata, Song

CAPTION = (
    "A calm solo piano piece with warm reverb and a slow, spacious left hand that keeps repeating a simple figure."
)
BLOCK = {
    "bpm": 120,
    "caption": CAPTION,
    "duration": 30,
    "genres": "Ambient",
    "keyscale": "F# minor",
    "language": "en",
    "timesignature": 4,
}
TEXT = """bpm: 120
caption: A calm solo piano piece with warm reverb and a slow, spacious left hand that
  keeps repeating a simple figure.
duration: 30
genres: Ambient
keyscale: F# minor
language: en
timesignature: 4"""


def test_order_and_line_breaks_of_training():
    assert write_block(dict(reversed(BLOCK.items()))) == TEXT
    assert read_block(TEXT) == BLOCK


def test_quotes():
    assert write_block({}) == ""
    assert write_block({"language": "no"}) == "language: 'no'"
    assert write_block({"caption": "a: b"}) == "caption: 'a: b'"
    assert write_block({"caption": "it's # 1"}) == "caption: 'it''s # 1'"
    assert write_block({"caption": "two\nlines"}) == "caption: two lines"
    assert write_block({"timesignature": "4", "bpm": "90"}) == "bpm: 90\ntimesignature: 4"
    blanks = "夜\u3000雨  two\u00a0words"
    assert write_block({"caption": f" {blanks}\r\nmore\n"}) == f"caption: {blanks} more"
    # The 80 columns are characters, not bytes.
    chinese = "夜" * 40 + " " + "夜" * 39 + " x y"
    assert write_block({"caption": chinese}) == yaml.dump({"caption": chinese}, allow_unicode=True).strip()
    assert write_block({"caption": chinese}).count("\n") == 1


@settings(max_examples=300, deadline=None)
@given(
    caption=st.text(st.characters(codec="utf-8"), max_size=200) | st.text("ab :#'\"-[]{}>|&*!%@`,?\\ é\n", max_size=200)
)
@example("'quoted' and then not")
@example('"a": b # c')
@example("</think> <think> bpm: 9")
def test_round_trip_of_captions(caption):
    caption = " ".join(caption.splitlines()).strip()
    block = read_block(write_block({"bpm": 30, "caption": caption, "duration": 10}))
    expected = {"bpm": 30, "duration": 10}
    if caption.lower() not in ("", "n/a"):
        expected["caption"] = str(yaml.safe_load(yaml.safe_dump(caption)))
    assert block == expected


@settings(max_examples=300, deadline=None)
@given(text=st.text("abpm:captiondurelgkys<>'\"\\UFx \t\n#&*[]{}|90-", max_size=300) | st.text())
def test_any_text_can_be_read(text):
    block = read_block(text)
    assert set(block) <= set(FIELDS)
    block_metadata(block)
    write_block(block)


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("language: no", {"language": "no"}),
        ("language: 'no'", {"language": "no"}),
        ("caption: soft: low # 1\n  and 'on'\nbpm: 99", {"caption": "soft: low # 1 and 'on'", "bpm": 99}),
        ("caption: 'it''s: a\n  song'\nbpm: 99", {"caption": "it's: a song", "bpm": 99}),
        ('caption: "one" and "two"', {"caption": '"one" and "two"'}),
        ('caption: "\\U99999999"', {"caption": '"\\U99999999"'}),
        ("BPM : 99\nnonsense: 3\n more\nduration: 20", {"bpm": 99, "duration": 20}),
        ("bpm: fast\nduration: N/A\nkeyscale:\nlanguage: n/a", {}),
        ("bpm: 29\nduration: 3", {"duration": 10}),
        ("bpm: 301\nduration: 6000 s", {"duration": 600}),
        ("bpm: 120.5", {"bpm": 120}),
        ("timesignature: 3/4", {"timesignature": 3}),
        ("timesignature: 6/8", {"timesignature": 6}),
        ("timesignature: 5", {}),
        ("keyscale: E♭ major", {"keyscale": "E♭ major"}),
        ("keyscale: H major", {}),
        ("language: English", {"language": "en"}),
        ("language: klingon", {}),
        ("<think>\nbpm: 99\n<x: 1>", {"bpm": 99}),
        ("caption: x\n\ttabbed\n\n  on", {"caption": "x tabbed on"}),
        ("caption:  夜\u3000雨  two\u00a0words \n  on", {"caption": "夜\u3000雨  two\u00a0words on"}),
        ("caption: 'a  b:\n\n  c'", {"caption": "a  b: c"}),
        ("", {}),
    ],
)
def test_reading(text, block):
    assert read_block(text) == block


def test_block_of_a_song():
    meta = Metadata(bpm=90, key="eb major", time_signature="6/8", language="no", duration=30.7)
    expected = {"bpm": 90, "duration": 30, "keyscale": "Eb major", "language": "no", "timesignature": 6}
    assert song_block(Song("x", "la", meta)) == expected
    assert "language" not in song_block(Song("x", "", meta))  # no vocals
    assert song_block(Song("x", "la", Metadata(language="unknown", duration=2))) == {"duration": 10}
    assert song_block(Song("x")) == {}


def test_planner_fills_only_gaps():
    planned = block_metadata(BLOCK)
    assert planned == Metadata(bpm=120, key="F# minor", time_signature="4", language="en", duration=30)
    given = Metadata(bpm=90, language="unknown", duration=7.5)
    assert merge_metadata(given, planned) == Metadata(90, "F# minor", "4", "en", 7.5)
    assert merge_metadata(Metadata(language="de"), planned).language == "de"
    assert merge_metadata(given, Metadata()) == given
