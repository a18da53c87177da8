"""Times from attention with a known alignment."""

from __future__ import annotations

import pytest
import torch

from acestep_core.lyrics.timing import sung_tokens, time_lyrics
from acestep_core.song.song import Song
from acestep_core.text.lyric_tokens import LyricTokens, locate_lyrics
from acestep_core.text.prompts import lyric_prompt
from tests.support import tiny_text
from tests.support.attention import constructed

tiny_tokenizer_dir, tiny_encoder = tiny_text.tiny_tokenizer_dir, tiny_text.tiny_encoder

PATCH = 0.08


def word_tokens(lyrics: str) -> LyricTokens:
    """Return one token per word, tag and line end."""
    import re

    return LyricTokens(lyrics, 3, tuple(match.span() for match in re.finditer(r"\[[^\]]*\]|\n+|[^\s\[]+", lyrics)))


def timed(lyrics, spans, patches, **options):
    """Time lyrics of which each word is sung in its span of patches. Line ends and tags are not sung."""
    tokens, spans = word_tokens(lyrics), iter(spans)
    per_token = [None if text[0] in "\n[" else next(spans) for text in tokens.texts]
    return time_lyrics(tokens, constructed(per_token, patches, **options), patches * PATCH, PATCH)


def patches_of(item) -> tuple[int, int]:
    start, end = item.start / PATCH, item.end / PATCH
    assert start == pytest.approx(round(start), abs=0.01) and end == pytest.approx(round(end), abs=0.01)
    return round(start), round(end)


def all_words(times):
    return [word for line in times.lines for word in line.words]


def test_words_lines_and_sections_have_the_times_of_their_tokens():
    spans = [(4, 8), (8, 11), (13, 20), (20, 26)]
    times = timed("[Verse]\nslow river\n\n[Chorus]\nocean fire", spans, 30)
    assert [patches_of(word) for word in all_words(times)] == spans
    assert [(line.text, patches_of(line), line.section) for line in times.lines] == [
        ("slow river", (4, 11), 0),
        ("ocean fire", (13, 26), 1),
    ]
    assert [(section.label, patches_of(section)) for section in times.sections] == [
        ("Verse", (4, 11)),
        ("Chorus", (13, 26)),
    ]
    assert all(line.found == 1 and line.confidence > 0.9 for line in times.lines)
    assert times.missing == () and times.duration == 30 * PATCH
    assert times.score.coverage < 1  # line ends count as tokens, as in the original


def test_repeated_sections_are_told_apart():
    spans = [(2, 6), (6, 10), (20, 25), (25, 31)]
    times = timed("[Chorus]\nlove heart\n[Chorus]\nlove heart", spans, 34)
    assert [patches_of(word) for word in all_words(times)] == spans
    assert [section.label for section in times.sections] == ["Chorus 1", "Chorus 2"]


def test_a_skipped_line_is_missing_and_moves_no_other():
    spans = [(2, 6), (6, 10), None, None, (20, 25), (25, 31)]
    times = timed("slow river\nocean fire\nlove heart", spans, 34)
    assert [patches_of(line) for line in (times.lines[0], times.lines[2])] == [(2, 10), (20, 31)]
    assert times.missing == (1,) and times.lines[1].found == 0 and times.lines[1].confidence == 0
    assert times.lines[0].end <= times.lines[1].start <= times.lines[1].end <= times.lines[2].start
    whole = timed("slow river\nlove heart", [spans[i] for i in (0, 1, 4, 5)], 34)
    assert times.score.coverage < whole.score.coverage and times.score.value < whole.score.value


def test_an_instrumental_part_is_a_gap_and_belongs_to_its_section():
    spans = [(5, 9), (9, 14), (210, 220), (220, 229)]
    times = timed("[Intro]\n[Verse]\nslow river\n[Solo]\n[Verse]\nocean fire\n[Outro]", spans, 300)
    assert [patches_of(line) for line in times.lines] == [(5, 14), (210, 229)]
    bounds = {section.label: patches_of(section) for section in times.sections}
    assert bounds == {
        "Intro": (0, 5),
        "Verse 1": (5, 14),
        "Solo": (14, 210),
        "Verse 2": (210, 229),
        "Outro": (229, 300),
    }
    assert [tuple(round(edge / PATCH) for edge in gap) for gap in times.gaps()] == [(14, 210), (229, 300)]


def test_a_word_that_is_not_found_stays_between_its_neighbours():
    times = timed("slow deep river\nfire", [(2, 6), None, (16, 20), (22, 24)], 30)
    first, lost, last = times.lines[0].words
    assert lost.confidence == 0 and first.end <= lost.start <= lost.end <= last.start
    assert patches_of(first) == (2, 6) and patches_of(last) == (16, 20)
    assert times.lines[0].found == pytest.approx(2 / 3, abs=1e-3) and times.missing == ()


def test_words_in_one_patch_do_not_overlap():
    times = timed("slow river\nocean", [(2, 6), (5, 9), (8, 12)], 20)
    words = all_words(times)
    assert all(before.end <= after.start for before, after in zip(words, words[1:], strict=False))


def test_a_token_of_several_characters_is_shared_and_a_split_character_is_one():
    tokens = LyricTokens("你好日", 3, ((0, 2), (2, 3), (2, 3), (2, 3)))
    times = time_lyrics(tokens, constructed([(2, 8), (10, 12), (12, 15), (15, 18)], 24), 24 * PATCH, PATCH)
    assert [(word.text, patches_of(word)) for word in all_words(times)] == [
        ("你", (2, 5)),
        ("好", (5, 8)),
        ("日", (10, 18)),
    ]


def test_punctuation_does_not_prolong_a_line():
    tokens = LyricTokens("love,\nfire!", 0, ((0, 4), (4, 6), (6, 10), (10, 11)))
    times = time_lyrics(tokens, constructed([(2, 6), (6, 20), (20, 24), (24, 29)], 30), 30 * PATCH, PATCH)
    assert [patches_of(line) for line in times.lines] == [(2, 6), (20, 24)]


def test_the_last_patch_ends_with_the_song():
    times = time_lyrics(word_tokens("love"), constructed([(2, 5)], 5), 4.5 * PATCH, PATCH)
    assert times.lines[0].end == pytest.approx(4.5 * PATCH)


def test_lines_beyond_the_last_token_are_missing():
    tokens = word_tokens("slow river\nocean fire")
    cut = LyricTokens(tokens.text, tokens.first, tokens.spans[:2])
    times = time_lyrics(cut, constructed([(2, 6), (6, 9)], 12), 12 * PATCH, PATCH)
    assert times.missing == (1,) and times.lines[1].start == times.duration == times.lines[1].end


def test_a_single_token_is_found():
    times = time_lyrics(word_tokens("love"), constructed([(5, 9)], 12), 12 * PATCH, PATCH)
    assert patches_of(times.lines[0]) == (5, 9) and times.missing == ()


def test_an_instrumental_has_sections_alone():
    times = timed("[Instrumental]", [], 20)
    assert times.lines == () and times.score is None
    assert [(section.label, patches_of(section)) for section in times.sections] == [("Instrumental", (0, 20))]


def test_tokens_of_tags_are_not_sung():
    tokens = LyricTokens("[Verse]\nla [oh", 0, ((0, 2), (2, 6), (6, 8), (8, 10), (10, 12), (12, 14)))
    assert sung_tokens(tokens).tolist() == [False, False, False, True, False, False]


HOSTILE = {
    "one line": "la " * 400,
    "too long": "slow river ocean fire\n" * 900,
    "emoji": "love 🎵\n👩‍👩‍👧 fire 🎵🎵\n\n🎵",
    "right to left": "[Verse]\nשלום עולם \u202eabc\u202c\nمرحبا می‌خواهم",
    "control characters": "slow\x00 river\x07\n\x1b[31mfire\x0b\u2028ocean\x85love",
    "brackets": "[[[[\n]]][\n[]\n[ ]la[]la]\n" * 9,
    "combining": "e\u0301\u0301\u0301 a\u0300" * 5 + "\n\u0301",
    "spaces": " \n\t\n\u3000\u00a0\n",
    "zero width": "\u200b\u200d\n\ufefflove",
    "huge tag": "[" + "x" * 3000 + "]\nlove",
}


@pytest.mark.parametrize("lyrics", HOSTILE.values(), ids=HOSTILE)
def test_hostile_lyrics_have_times_in_their_order(tiny_encoder, lyrics):
    tokens = locate_lyrics(tiny_encoder.tokenizer, lyric_prompt(Song("", lyrics)))
    attention = torch.rand(2, len(tokens.spans), 90, generator=torch.Generator().manual_seed(1))
    times = time_lyrics(tokens, attention, 90 * PATCH, PATCH)
    spans = [span for line in times.lines for span in ((line.start, line.end),)]
    words = [(word.start, word.end) for word in all_words(times)]
    for pairs in (spans, words):
        assert all(0 <= start <= end <= times.duration for start, end in pairs)
        assert all(before[1] <= after[0] + 1e-9 for before, after in zip(pairs, pairs[1:], strict=False))
    assert all("\n" not in line.text and line.text.strip() for line in times.lines)
    for line in times.lines:
        assert "".join(word.text for word in line.words) == line.text.replace(" ", "")
        assert line.start <= line.words[0].start and line.words[-1].end <= line.end + 1e-9
    assert all(section.start <= section.end for section in times.sections)
