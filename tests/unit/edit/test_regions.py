import pytest

from acestep_core.edit.regions import parse_regions, widen
from acestep_core.errors import RequestError


def test_parse_regions():
    assert parse_regions("10-15, 40-") == ((10, 15), (40, None))
    assert parse_regions("-5; 7.5 – 8\n9 to 10.25,") == ((0, 5), (7.5, 8), (9, 10.25))
    assert parse_regions("0:01-0:02.5；1:20-，90-10:00、-2") == ((1, 2.5), (80, None), (90, 600), (0, 2))
    assert parse_regions(" ") == ()


@pytest.mark.parametrize("text", ["-", "ten-12", "5", "1-2-3", "3--4"])
def test_invalid_ranges_are_refused(text):
    with pytest.raises(RequestError, match="range"):
        parse_regions(text)


def test_widen_reaches_into_the_song():
    assert widen(((0.0, 4.0), (10.0, 12.0)), 1.5, 12.0) == ((0, 5.5), (8.5, 12))
    with pytest.raises(RequestError, match="overlap"):
        widen(((0.0, 4.0),), -1.0, 12.0)


@pytest.mark.parametrize(
    "regions, overlap",
    [(((6.0, 26.0),), 10.0), (((6.0, 26.0),), 5.97), (((0.0, 2.0), (8.0, 9.0)), 3.0)],
)
def test_overlap_must_leave_something_of_the_song(regions, overlap):
    with pytest.raises(RequestError, match=f"overlap.* {overlap:g} .* 6 seconds"):
        widen(regions, overlap, regions[-1][1])
    assert widen(regions, 2.9, regions[-1][1])
    assert widen(((0.0, 3.0), (3.0, 9.0)), 0.0, 9.0)  # nothing was left before either
