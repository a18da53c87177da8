import re

import pytest

from acestep_core.errors import RequestError
from acestep_core.song.codes import (
    CODE_COUNT,
    MAX_CODES,
    format_codes,
    format_songs,
    parse_codes,
    parse_songs,
    seconds_of,
)


def test_tags_are_read_whatever_stands_between_them():
    assert parse_codes("<think>x: 5</think>\n<|audio_code_12|><|audio_code_63999|> <|im_end|>") == (12, 63999)


@pytest.mark.parametrize("text", ["3101,11837,7", " 3101, 11837 ;7,", "[3101, 11837, 7]", "3101 11837\n7"])
def test_lists_of_numbers_are_read_too(text):
    assert parse_codes(text) == (3101, 11837, 7)


@pytest.mark.parametrize("text", ["", "  \n", "[]"])
def test_no_codes_are_none(text):
    assert parse_codes(text) == ()


def test_the_text_form_is_the_planners_and_comes_back():
    assert format_codes((0, 35847)) == "<|audio_code_0|><|audio_code_35847|>"
    songs = ((1, 2, 3), (4,))
    assert parse_songs(format_songs(songs) + "\n\n") == songs


@pytest.mark.parametrize(
    "text, message",
    [
        ("12, 64000", "whole numbers from 0 to 63999, got 64000 in place 2"),
        ("<|audio_code_-1|>", "from 0 to 63999, got -1"),
        ("<|audio_code_" + "9" * 5000 + "|>", "from 0 to 63999"),
        ("la la la", "these are no audio codes: 'la la la'"),
        ("1.5", "these are no audio codes"),
        ("1," * (MAX_CODES + 1), "at most 3000 audio codes"),
    ],
)
def test_what_is_no_code_is_refused(text, message):
    with pytest.raises(RequestError, match=message):
        parse_codes(text)


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("<|audio_code_1|><|audio_code_x|><|audio_code_2|>", "<|audio_code_x|>"),
        ("<|audio_code_1|><|audio_code_12", "<|audio_code_12"),
        ("<|audio_code_1|><|audio_co", "<|audio_co"),
        ("code_12|><|audio_code_2|>", "code_12|>"),
        ("<|audio_code_0001|>", "<|audio_code_0001|>"),
        ("<|audio_code_-0|>", "<|audio_code_-0|>"),
        ("<|audio_code_1.5|>", "<|audio_code_1.5|>"),
        ("<|audio_code_1٣|>", "<|audio_code_1٣|>"),
        ("<audio_code_1>", "<audio_code_1>"),
        ("5, <|audio_code_" + "x" * 5000, "<|audio_code_xxx"),
    ],
)
def test_a_broken_code_is_named_and_not_left_out(text, piece):
    with pytest.raises(RequestError, match=f"^'{re.escape(piece)}.* is a broken audio code; a whole one looks like"):
        parse_codes(text)


def test_the_limit_is_that_of_the_model():
    assert CODE_COUNT == 64_000
    with pytest.raises(RequestError, match="from 0 to 99, got 100"):
        parse_codes("100", count=100)


def test_five_codes_are_a_second():
    assert seconds_of(tuple(range(50))) == 10
