"""Regions of a song by name: "chorus 2", "[Bridge]", "line 7", "missing lines"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..edit.regions import BETWEEN, OpenRegions, parse_regions, parse_time
from ..errors import RequestError
from .structure import KINDS, section_name

if TYPE_CHECKING:
    from .times import LyricTimes

MARGIN = 0.3  # seconds around the vocals, as far as the neighbouring lines leave them free
ROOM = 1.0  # seconds that a missing line needs

_LINES = re.compile(r"lines?\s+(\d{1,4})(?:\s*(?:-|–|to)\s*(\d{1,4}))?")


@dataclass(frozen=True)
class NamedRegion:
    """A region in seconds and the name of its section or lines."""

    name: str
    start: float
    end: float


def is_named(where: str) -> bool:
    """Return True if a text names sections or lines, False if it holds seconds alone."""
    return any(part.strip() and not _has_seconds(part) for part in BETWEEN.split(where))


def _has_seconds(part: str) -> bool:
    return re.match(r"[\d.:\s]*(?:-|–|to\b|$)", part.strip()) is not None


def describe_regions(regions: Iterable[NamedRegion]) -> str:
    """Return a phrase that gives the seconds of named regions."""
    return ", ".join(f"{region.name} is {region.start:g}-{region.end:g} seconds" for region in regions)


def seam_of(where: str, times: LyricTimes | None) -> NamedRegion | None:
    """Return the part after which a song goes on, the last one that `where` names or gives in seconds.

    where: as for `find_regions`, or a time such as "42" or "1:20". times: may be None for seconds.

    Returns None if the part lasts to the end of the song. Raises RequestError.
    """
    time = parse_time(where)
    if time is not None:
        return NamedRegion(where.strip(), 0.0, time)
    if not is_named(where):
        ends = [end for _, end in parse_regions(where)]
        return NamedRegion(where.strip(), 0.0, ends[-1]) if ends and ends[-1] is not None else None
    return find_regions(where, _required(times, where))[-1]


def _required(times: LyricTimes | None, where: str) -> LyricTimes:
    if times is None:
        raise RequestError(f"times: missing. Connect Lyric Times to find {where.strip()!r}, or give seconds.")
    return times


def regions_of(where: str, times: LyricTimes | None) -> tuple[OpenRegions, str]:
    """Return the regions of `where` in seconds, and a phrase that gives those of names.

    where: as for `find_regions`, or seconds. times: may be None for seconds. Raises RequestError.
    """
    if not is_named(where):
        return parse_regions(where), ""
    found = find_regions(where, _required(times, where))
    return tuple((region.start, region.end) for region in found), describe_regions(found)


def find_regions(where: str, times: LyricTimes, margin: float = MARGIN) -> tuple[NamedRegion, ...]:
    """Return the regions of the sections and lines that `where` names, in the order of the song.

    where: names such as "chorus 2", "[Bridge]", "line 7", "lines 3-5" and "missing lines", separated by commas. A name
        without a number, such as "chorus", is every section of that name. Lines count from 1, without tags. Seconds,
        such as 10-15, may stand between the names.
    margin: seconds before and after the vocals. A region ends at the neighbouring line at the latest.

    Regions that touch become one. Raises RequestError for a name that is not in the lyrics.
    """
    parts = [part.strip() for part in BETWEEN.split(where) if part.strip()]
    if not parts:
        raise RequestError(f"where: empty; give a section or a line, such as {_known(times)}")
    regions = sorted((region for part in parts for region in _find(part, times, margin)), key=lambda each: each.start)
    joined: list[NamedRegion] = []
    for region in regions:
        if joined and region.start <= joined[-1].end:
            last = joined[-1]
            name = last.name if region.name in last.name.split(", ") else f"{last.name}, {region.name}"
            joined[-1] = NamedRegion(name, last.start, max(last.end, region.end))
        else:
            joined.append(region)
    for region in joined:
        if region.end <= region.start:
            raise RequestError(f"where: {region.name!r} has no time in this song; give {_known(times)}")
    return tuple(joined)


def _find(name: str, times: LyricTimes, margin: float) -> list[NamedRegion]:
    if _has_seconds(name):
        ((start, end),) = parse_regions(name)
        return [NamedRegion(name, start, times.duration if end is None else end)]
    plain = _normal(name)
    if plain in ("missing", "missing line", "missing lines"):
        if all(line.found is None for line in times.lines):
            raise RequestError("where: these times do not tell which lines are missing; find them with Lyric Times")
        if not times.missing:
            raise RequestError("where: no line is missing; give a section or a line instead")
        return _around_missing(times, margin)
    if match := _LINES.fullmatch(name.casefold()):
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= len(times.lines):
            raise RequestError(f"where: {name!r} is not in these lyrics; they have lines 1 to {len(times.lines)}")
        region = _around_lines(times, first - 1, last - 1, margin)
        if region.end <= region.start:
            raise RequestError(f"where: {name!r} has no time in this song, as it is not sung; give {_known(times)}")
        return [region]
    base, number = re.fullmatch(r"(.*?)( \d+)?", plain).groups(default="")  # type: ignore[union-attr]
    kind = next((kind for kind, others in KINDS.items() if base in others), base)  # "hook" is a chorus
    names = list(_section_names(times))
    found = [i for i, own in enumerate(names) if plain in own] or [
        i for i, own in enumerate(names) if kind + number in own
    ]
    if not found:
        raise RequestError(f"where: {name!r} is not in these lyrics; they have {_known(times)}")
    return [_around_section(times, index, margin) for index in found]


def _normal(name: str) -> str:
    name = section_name(name.strip().strip("[]"))
    return " ".join(re.sub(r"[\s_-]+|(?<=\D)(?=\d+$)", " ", name.casefold()).split())


def _section_names(times: LyricTimes) -> Iterator[set[str]]:
    """Yield the names of each section: its own, its kind, and both with its number."""
    seen: dict[str, int] = {}
    for section in times.sections:
        seen[section.kind] = seen.get(section.kind, 0) + 1
        name = _normal(section.name)
        numbered = re.search(r" (\d+)$", name)
        number = numbered[1] if numbered else str(seen[section.kind])
        base = name[: numbered.start()] if numbered else name
        kind = _normal(section.kind)
        yield {name, base, kind, f"{base} {number}", f"{kind} {number}", _normal(section.label)}


def _known(times: LyricTimes) -> str:
    labels = [section.label for section in times.sections]
    lines = [f"lines 1 to {len(times.lines)}"] if times.lines else []
    return ", ".join([*labels, *lines]) or "no sections and no lines"


def _around_lines(times: LyricTimes, first: int, last: int, margin: float) -> NamedRegion:
    return NamedRegion(
        _line_name(first, last), *_widened(times, times.lines[first].start, times.lines[last].end, first, last, margin)
    )


def _around_missing(times: LyricTimes, margin: float) -> list[NamedRegion]:
    """Return the room of each run of missing lines, with the neighbouring lines if it is too short to sing in."""
    missing, last = {*times.missing}, len(times.lines) - 1
    regions = []
    for first in sorted(i for i in missing if i - 1 not in missing):
        end = next(i for i in range(first, last + 1) if i + 1 not in missing)
        before = times.lines[first - 1].end if first else 0.0
        after = times.lines[end + 1].start if end < last else times.duration
        if after - before >= ROOM * (end + 1 - first):
            regions.append(NamedRegion(_line_name(first, end), round(before, 3), round(after, 3)))
        else:
            regions.append(_around_lines(times, max(0, first - 1), min(last, end + 1), margin))
    return regions


def _line_name(first: int, last: int) -> str:
    return f"line {first + 1}" if first == last else f"lines {first + 1}-{last + 1}"


def _around_section(times: LyricTimes, index: int, margin: float) -> NamedRegion:
    section = times.sections[index]
    own = [i for i, line in enumerate(times.lines) if line.section == index]
    if not own:
        return NamedRegion(section.label, section.start, section.end)
    return NamedRegion(section.label, *_widened(times, section.start, section.end, own[0], own[-1], margin))


def _widened(times: LyricTimes, start: float, end: float, first: int, last: int, margin: float) -> tuple[float, float]:
    """Return a span with a margin on both sides, between the lines before `first` and after `last`."""
    before = times.lines[first - 1].end if first else 0.0
    after = times.lines[last + 1].start if last + 1 < len(times.lines) else times.duration
    start, end = max(start - margin, min(before, start)), min(end + margin, max(after, end))
    return round(start, 3), round(end, 3)
