"""The logic of the waveform widget, without a page."""

from __future__ import annotations

import json
from functools import partial

import pytest

from acestep_core.edit.regions import parse_regions
from acestep_core.errors import RequestError
from tests.support import javascript

TEXTS = [
    "", "10-15", "10-15, 1:20-", " 3 - 4 ;0.5–1", "-7", "40-", "5 to 6", "1:00.5-1:20，70-80、90-95", "soon", "-", "5",
    "3-2", "1-2-3", "1.-2", "a-b", "10-15,,", "-0", "5-5",
]  # fmt: skip


evaluate = partial(javascript.evaluate, "ranges.js")


def test_texts_are_parsed_as_by_the_node() -> None:
    parsed = evaluate(*(f"m.parseRanges({json.dumps(text)})" for text in TEXTS))
    for text, ranges in zip(TEXTS, parsed, strict=True):
        try:
            regions = [{"start": start, "end": end} for start, end in parse_regions(text)]
            expected = regions if all(r["end"] is None or r["end"] > r["start"] for r in regions) else None
        except RequestError:
            expected = None
        assert ranges == expected, text


@pytest.mark.parametrize("ranges", [[(0, 5)], [(40, 45), (2, 3.25), (60, None)], [(0, None)], [(7, 8), (1, None)]])
def test_ranges_become_widgets_and_widgets_ranges(ranges: list[tuple]) -> None:
    given = json.dumps([{"start": start, "end": end} for start, end in ranges])
    values, back = evaluate(f"m.valuesOf({given})", f"m.rangesOf(m.valuesOf({given}))")
    ordered = sorted(ranges)
    assert back == [{"start": start, "end": end} for start, end in ordered]
    assert (values["start"], values["end"]) == (ordered[0][0], ordered[0][1] or 0)
    assert [tuple(region) for region in parse_regions(values["more_ranges"])] == ordered[1:]


def test_widgets_that_are_no_ranges() -> None:
    values = ({"start": 5, "end": 3, "more_ranges": ""}, {"start": 0, "end": 3, "more_ranges": "soon"})
    assert evaluate(*(f"m.rangesOf({json.dumps(each)})" for each in values)) == [None, None]


def test_seconds_and_pixels() -> None:
    view = "const view = new m.View(100, 500);"
    whole, near, panned, limits, ticks, steps = evaluate(
        f"{{ {view} return [view.xOf(25), view.secondsAt(250), view.secondsAt(-9), view.secondsAt(900)]; }}",
        f"{{ {view} view.zoom(0.1, 250); return [view.start, view.end, view.secondsAt(250)]; }}",
        f"{{ {view} view.zoom(0.1, 0); view.pan(250); return [view.start, view.end]; }}",
        f"{{ {view} view.zoom(0, 499); const s = view.seconds; view.zoom(1e9, 0); return [s, view.start, view.end]; }}",
        f"{{ {view} view.zoom(0.1, 0); return view.ticks; }}",
        f"{{ {view} const far = view.snapStep; view.zoom(0.01, 0); return [far, view.snapStep]; }}",
    )
    assert whole == [125, 50, 0, 100]
    assert near == [45, 55, 50]
    assert panned == [5, 15]
    assert limits == [0.5, 0, 100]
    assert ticks == [0, 5, 10]
    assert steps == [1, 0.1]


def test_hits_prefer_edges() -> None:
    setup = "const view = new m.View(100, 500), ranges = [{start: 10, end: 20}, {start: 80, end: null}];"
    xs = [50, 53, 75, 96, 100, 250, 400, 450, 497]
    hits = evaluate(f"{{ {setup} return {xs}.map(x => m.hit(ranges, view, x)); }}")[0]
    found = [hit and (hit["index"], hit["part"]) for hit in hits]
    assert found == [
        (0, "start"), (0, "start"), (0, "inside"), (0, "end"), (0, "end"), None, (1, "start"), (1, "inside"),
        (1, "end"),
    ]  # fmt: skip


def test_edges_find_the_nearest_moment() -> None:
    setup = "const view = new m.View(100, 500), moments = [10, 11, 40];"
    found = evaluate(f"{{ {setup} return [9, 10.4, 10.6, 30, 41, 41.3].map(s => m.nearest(moments, s, view)); }}")[0]
    assert found == [10, 10, 11, None, 40, None]


def test_ranges_stay_within_the_song() -> None:
    results = evaluate(
        "m.between(7, 3, 60)",
        "m.between(-5, 70, 60)",
        "m.between(5, 5, 60)",
        "m.between(60, 60, 60)",
        "m.withEdge({start: 5, end: 9}, 'end', 7, 60)",
        "m.withEdge({start: 5, end: 9}, 'end', 1, 60)",
        "m.withEdge({start: 5, end: 9}, 'start', 59, 60)",
        "m.withEdge({start: 5, end: null}, 'start', 50, 60)",
        "m.withEdge({start: 5, end: 9}, 'end', 99, 60)",
        "m.movedTo({start: 5, end: 9}, -3, 60)",
        "m.movedTo({start: 5, end: 9}, 58, 60)",
        "m.movedTo({start: 5, end: 9}, 20, 60)",
    )
    assert [(result["start"], result["end"]) for result in results] == [
        (3, 7), (0, None), (5, 5.1), (59.9, None), (5, 7), (5, 5.1), (8.9, 9), (50, None), (5, None),
        (0, 4), (56, None), (20, 24),
    ]  # fmt: skip


def test_clock_and_snap() -> None:
    assert evaluate("m.clock(0)", "m.clock(59.96)", "m.clock(83.24)", "m.clock(600, 0)", "m.clock(-1, 0)") == [
        "0:00.0", "1:00.0", "1:23.2", "10:00", "0:00",
    ]  # fmt: skip
    assert evaluate("m.snap(3.14, 0.5)", "m.snap(3.14159, 0)", "m.snap(0.26, 0.1)") == [3, 3.14, 0.3]


def test_peaks_hold_the_extremes_of_every_part() -> None:
    channels = "const left = new Float32Array(1000), right = new Float32Array(1000); left[10] = 0.5; right[999] = -1;"
    peaks, few, shown, none = evaluate(
        f"{{ {channels} const p = m.peaksOf([left, right], 10); return [[...p.low], [...p.high]]; }}",
        "{ const p = m.peaksOf([new Float32Array([1, -1])], 50); return [[...p.low], [...p.high]]; }",
        f"{{ {channels} return m.extremes(m.peaksOf([left, right], 10), 20, 0, 1); }}",
        "{ const p = m.peaksOf([], 50); return [[...p.low], [...p.high]]; }",
    )
    assert peaks == [[0] * 9 + [-1], [0.5] + [0] * 9]
    assert few == [[1, -1], [1, -1]]
    assert shown == [0, 0.5]
    assert none == [[0], [0]]


def test_the_whole_song_of_stems_is_no_range() -> None:
    texts = ((0, 0, ""), (0, 0, "3-4"), (2, 5, "8-"), (0, 5, ""))
    values = [{"start": start, "end": end, "more_ranges": more} for start, end, more in texts]
    read = evaluate(*(f"m.KINDS.AS15_Stems.read({json.dumps(each)})" for each in values))
    assert [[(each["start"], each["end"]) for each in ranges] for ranges in read] == [
        [], [(3, 4)], [(2, 5), (8, None)], [(0, 5)],
    ]  # fmt: skip
    written = evaluate(
        *(f"m.KINDS.AS15_Stems.write({json.dumps(ranges)})" for ranges in read[:1] + read[2:]),
        "m.KINDS.AS15_Stems.write([{start: 5, end: 6}, {start: 0, end: null}])",
    )
    assert written == [values[0], *values[2:], {"start": 0, "end": 0, "more_ranges": "0-, 5-6"}]


def test_a_timbre_has_one_part_or_the_whole() -> None:
    parts = (([], (0, 0)), ([(2, 5)], (2, 5)), ([(7.5, None)], (7.5, 0)), ([(0, 4)], (0, 4)))
    ranges = [[{"start": start, "end": end} for start, end in part] for part, _ in parts]
    written = evaluate(*(f"m.KINDS.AS15_Timbre.write({json.dumps(each)})" for each in ranges))
    assert [(values["start"], values["end"]) for values in written] == [values for _, values in parts]
    assert evaluate(*(f"m.KINDS.AS15_Timbre.read({json.dumps(values)})" for values in written)) == ranges
    assert evaluate("m.KINDS.AS15_Timbre.read({start: 5, end: 3})") == [None]


def test_an_extension_continues_from_a_place() -> None:
    texts = ["", "42", "1:20.5", "10-15", "10-15, 20-30", "40-", "chorus 2", "line 7"]
    read = evaluate(*(f"m.KINDS.AS15_Extend.read({{where: {json.dumps(text)}}})" for text in texts))
    starts = [42, 80.5, 15, 30]
    assert read == [[], *([{"start": start, "end": None}] for start in starts), [], None, None]
    written = evaluate("m.KINDS.AS15_Extend.write([{start: 7.25, end: null}])", "m.KINDS.AS15_Extend.write([])")
    assert written == [{"where": "7.25"}, {"where": ""}]


def test_the_line_that_is_sung_or_follows() -> None:
    setup = "const lines = [[1, 2, 'one'], [2, 3, 'two'], [5, 6, 'three']];"
    found = evaluate(f"{{ {setup} return [0, 1, 2, 2.9, 4, 5.5, 6].map(second => m.lineAt(lines, second)); }}")[0]
    assert [(line["text"], line["isSung"]) for line in found] == [
        ("one", False), ("one", True), ("two", True), ("two", True), ("three", False), ("three", True), ("", False),
    ]  # fmt: skip
    assert evaluate("m.lineAt([], 3)") == [{"text": "", "isSung": False}]
