from __future__ import annotations

import random
from dataclasses import replace

import pytest

from acestep_core.errors import RequestError
from acestep_core.lyrics.structure import parse_lyrics
from acestep_core.lyrics.times import LyricTimes, TimedLine, TimedSection
from acestep_core.lyrics.where import find_regions, is_named, regions_of, seam_of

LYRICS = """[Intro]
[Verse 1]
a one
b two
[Chorus]
c three
d four
[Guitar Solo]
[Verse 2 - soft]
e five
[Chorus]
f six
[Bridge]
g seven"""


@pytest.fixture(scope="module")
def times() -> LyricTimes:
    """Return lines of 4 seconds, with 1 second between them and 10 before line 5."""
    structure = parse_lyrics(LYRICS)
    starts = [10, 15, 20, 25, 39, 44, 49]
    lines = tuple(
        TimedLine(line.text, float(start), start + 4.0, (), line.section, 1.0, 0.5)
        for line, start in zip(structure.lines, starts, strict=True)
    )
    bounds = [(0, 10), (10, 19), (20, 29), (29, 39), (39, 43), (44, 48), (49, 53)]
    sections = tuple(
        TimedSection(section.name, section.kind, section.label, *map(float, bound))
        for section, bound in zip(structure.sections, bounds, strict=True)
    )
    return LyricTimes(lines, sections, 60.0)


def where(text, times, **options):
    return [(region.start, region.end) for region in find_regions(text, times, **options)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chorus 2", [(43.7, 48.3)]),
        ("Chorus", [(19.7, 29.3), (43.7, 48.3)]),
        ("hook 2", [(43.7, 48.3)]),
        ("[Bridge]", [(48.7, 53.3)]),
        ("verse2", [(38.7, 43.3)]),
        ("Verse 2 - soft", [(38.7, 43.3)]),
        ("verse 1", [(9.7, 19.3)]),
        ("guitar solo", [(29.0, 39.0)]),
        ("solo", [(29.0, 39.0)]),
        ("intro", [(0.0, 10.0)]),
        ("line 7", [(48.7, 53.3)]),
        ("lines 1-3", [(9.7, 24.3)]),
        ("line 5, line 1", [(9.7, 14.3), (38.7, 43.3)]),
        ("line 1; chorus 1", [(9.7, 14.3), (19.7, 29.3)]),
    ],
)
def test_names_are_regions(times, text, expected):
    assert where(text, times) == expected


def test_a_margin_ends_at_the_neighbouring_lines(times):
    assert where("line 2", times, margin=3) == [(14.0, 20.0)]
    assert where("bridge", times, margin=30) == [(48.0, 60.0)]
    assert where("line 2", times, margin=0) == [(15.0, 19.0)]


def test_regions_that_touch_are_joined(times):
    (region,) = find_regions("line 2, line 3", times, margin=1)
    assert (region.start, region.end, region.name) == (14.0, 25.0, "line 2, line 3")


def test_missing_lines_get_room(times):
    def without(*missing: int) -> LyricTimes:
        lines = [replace(line, found=0.0) if i in missing else line for i, line in enumerate(times.lines)]
        return replace(times, lines=tuple(lines))

    squeezed = list(without(1).lines)
    squeezed[1] = replace(squeezed[1], start=14.5, end=14.5)
    squeezed[2] = replace(squeezed[2], start=14.6)
    assert where("missing lines", without(4)) == [(29.0, 44.0)]
    assert where("missing", without(0, 1)) == [(0.0, 20.0)]
    # Without room for line 2, its neighbours are generated again as well.
    (region,) = find_regions("missing", replace(times, lines=tuple(squeezed)))
    assert region.name == "lines 1-3" and (region.start, region.end) == (9.7, 24.3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chorus 3", "'chorus 3' is not in these lyrics; they have Intro, Verse 1, Chorus 1"),
        ("drop", "not in these lyrics"),
        ("line 8", "lines 1 to 7"),
        ("lines 3-2", "lines 1 to 7"),
        ("missing lines", "no line is missing"),
        (" , ", "empty"),
    ],
)
def test_unknown_names_are_refused(times, text, message):
    with pytest.raises(RequestError, match=message):
        find_regions(text, times)


def test_missing_lines_of_a_file_without_scores_are_refused(times):
    unknown = replace(times, lines=tuple(replace(line, found=None) for line in times.lines))
    with pytest.raises(RequestError, match="do not tell"):
        find_regions("missing", unknown)


@pytest.mark.parametrize(
    ("text", "named"),
    [("10-15, 1:20-", False), ("12", False), ("-5", False), ("chorus 2", True), ("1-2, bridge", True)],
)
def test_names_differ_from_seconds(text, named):
    assert is_named(text) is named


def test_seconds_may_stand_between_names(times):
    assert where("chorus 2, 5-7", times) == [(5, 7), (43.7, 48.3)]
    assert where("bridge, 55-", times) == [(48.7, 53.3), (55, 60)]


def test_regions_are_seconds_or_names(times):
    assert regions_of("10-15, 40-", None) == (((10, 15), (40, None)), "")
    regions, found = regions_of("chorus 2", times)
    assert regions == ((43.7, 48.3),) and "Chorus 2 is 43.7-48.3 seconds" in found
    with pytest.raises(RequestError, match="times.*chorus 2"):
        regions_of(" chorus 2", None)


def test_a_song_continues_after_the_last_part(times):
    assert [seam_of(text, None).end for text in ("42", "1:20", "0-30", "5-7, 9-11")] == [42, 80, 30, 11]
    assert [seam_of(text, times).end for text in ("chorus", "line 3", "bridge, verse 1")] == [48.3, 24.3, 53.3]
    assert seam_of("40-", None) is None and seam_of(",", None) is None
    with pytest.raises(RequestError, match="times"):
        seam_of("chorus", None)


def test_a_section_without_a_time_is_refused(times):
    silent = replace(times, sections=tuple(replace(each, end=each.start) for each in times.sections))
    with pytest.raises(RequestError, match="solo.*no time|Solo.*no time"):
        find_regions("guitar solo", silent)


PIECES = ["chorus", "line", "lines", "2", "0", "99", "-", "–", "to", "[", "]", "missing lines", ",", "；", " ", "9-5",
          "1:2", "٣", "²", ".", "hook", "副歌", "\n", "\x00", "🎵", "1" * 30, "solo 1"]  # fmt: skip


def test_any_text_is_a_region_or_an_error_that_starts_with_its_input(times):
    choose = random.Random(0)
    found = 0
    for _ in range(3000):
        text = "".join(choose.choice(PIECES) for _ in range(choose.randrange(1, 6)))
        for work in (regions_of, seam_of):
            try:
                work(text, times)
                found += 1
            except RequestError as error:
                assert str(error).startswith(("where", "range", "times")), (text, error)
    assert found > 300
