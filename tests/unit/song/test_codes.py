import re
from math import prod

import pytest

from acestep_core.config import CODE_COUNT, ModelConfig
from acestep_core.errors import RequestError
from acestep_core.song.codes import (
    MAX_CODES,
    format_code_lines,
    format_codes,
    parse_code_lines,
    parse_codes,
    seconds_of,
)


def test_tags_are_parsed_with_any_text_between_them():
    assert parse_codes("<think>x: 5</think>\n<|audio_code_12|><|audio_code_63999|> <|im_end|>") == (12, 63999)


@pytest.mark.parametrize("text", ["3101,11837,7", " 3101, 11837 ;7,", "[3101, 11837, 7]", "3101 11837\n7"])
def test_lists_of_numbers_are_parsed_too(text):
    assert parse_codes(text) == (3101, 11837, 7)


@pytest.mark.parametrize("text", ["", "  \n", "[]"])
def test_empty_text_has_no_codes(text):
    assert parse_codes(text) == ()


def test_formatted_codes_are_parsed_back():
    assert format_codes((0, 35847)) == "<|audio_code_0|><|audio_code_35847|>"
    songs = ((1, 2, 3), (4,))
    assert parse_code_lines(format_code_lines(songs) + "\n\n") == songs


@pytest.mark.parametrize(
    "text, message",
    [
        ("12, 64000", "0 to 63999, got 64000 in place 2"),
        ("<|audio_code_-1|>", "got -1"),
        ("<|audio_code_" + "9" * 5000 + "|>", "0 to 63999"),
        ("la la la", "parse 'la la la'"),
        ("1.5", "parse"),
        ("1," * (MAX_CODES + 1), "at most 3000"),
    ],
)
def test_invalid_codes_are_refused(text, message):
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
def test_a_broken_tag_is_refused_by_name(text, piece):
    with pytest.raises(RequestError, match=f"'{re.escape(piece)}.* broken tag"):
        parse_codes(text)


def test_a_million_separators_are_refused():
    """Within the time limit of a test. An expression that may skip separators in two places would need hours."""
    with pytest.raises(RequestError, match="cannot parse"):
        parse_codes("," * 1_000_000 + "x")


def test_the_codebook_size_limits_codes():
    assert CODE_COUNT == prod(ModelConfig().fsq_input_levels)
    with pytest.raises(RequestError, match="0 to 99, got 100"):
        parse_codes("100", count=100)


def test_one_second_has_five_codes():
    assert seconds_of(tuple(range(50))) == 10
