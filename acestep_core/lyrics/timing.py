"""Turn an alignment of tokens into times of words, lines and sections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..text.lyric_tokens import LyricTokens
from .alignment import alignment_energy, mean_energy, warping_path
from .scores import FOUND_ENERGY, score_lyrics
from .scripts import script_of
from .structure import TAG, Structure, SungLine, parse_lyrics
from .times import LyricTimes, TimedLine, TimedSection, TimedWord

FADED = 0.1  # share of a token's highest energy; before and after its last patch above, the token does not sound

Mask = NDArray[np.bool_]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class _Spans:
    """Start and end in seconds of tokens or characters, with their confidence. All arrays have one entry each.

    An item without a time has a NaN start. One that is not found has the time of its place in the alignment.
    """

    starts: Doubles
    ends: Doubles
    confidence: Doubles
    found: Mask


def time_lyrics(tokens: LyricTokens, attention: Tensor, seconds: float, patch_seconds: float) -> LyricTimes:
    """Return the times of lyrics.

    attention: [heads, tokens, patches] of the tokens, float32, on the CPU.
    seconds: duration of the song, which may end within the last patch.
    """
    structure = parse_lyrics(tokens.text)
    if not tokens.spans:
        return LyricTimes((), (), seconds)
    spans = _token_spans(attention, patch_seconds, seconds)
    characters = _character_spans(tokens, spans)
    if not structure.lines:
        return LyricTimes((), _timed_sections(structure, (), characters.starts, seconds), seconds)
    words = _timed_words(structure, characters, seconds)
    shares = _found_shares(tokens, spans.found, structure)
    lines = [
        _timed_line(line, [next(words) for _ in line.words], share)
        for line, share in zip(structure.lines, shares.tolist(), strict=True)
    ]
    sections = _timed_sections(structure, lines, characters.starts, seconds)
    return LyricTimes(tuple(lines), sections, seconds, score_lyrics(attention, sung_tokens(tokens)))


def sung_tokens(tokens: LyricTokens) -> Mask:
    """Return a mask of the tokens outside of tags."""
    in_tag = np.zeros(len(tokens.text) + 1, bool)
    for tag in TAG.finditer(tokens.text):
        in_tag[slice(*tag.span())] = True
    return np.array([not in_tag[start:end].any() for start, end in tokens.spans], bool)


def _token_spans(attention: Tensor, patch_seconds: float, seconds: float) -> _Spans:
    """Align the tokens. Each one lasts while its energy is high, or for its part of the path if it is not found."""
    to_align, standing_out = alignment_energy(attention)
    energy = mean_energy(attention)
    if not standing_out.any():  # as with one or two tokens
        to_align = standing_out = np.square(energy)
    first, last = warping_path(-to_align.astype(np.float64)).bounds()
    confidence, found = np.zeros(len(first)), np.zeros(len(first), bool)
    for token, (start, end) in enumerate(zip(first, last, strict=True)):
        part = standing_out[token, start : end + 1]
        loud = np.flatnonzero(part > FADED * part.max())
        if len(loud) and energy[token, start : end + 1].max() > FOUND_ENERGY:
            first[token], last[token] = start + loud[0], start + loud[-1]
            confidence[token] = energy[token, first[token] : last[token] + 1].mean()
            found[token] = True
    starts, ends = (np.minimum(patches * patch_seconds, seconds) for patches in (first, last + 1))
    return _Spans(starts, ends, confidence, found)


def _character_spans(tokens: LyricTokens, spans: _Spans) -> _Spans:
    """Share the time of each token among its characters. A character of several tokens lasts through all of them."""
    count = len(tokens.text)
    shared = _Spans(np.full(count, np.nan), np.full(count, np.nan), np.zeros(count), np.zeros(count, bool))
    for token, span in enumerate(tokens.spans):
        places = [place for place in range(*span) if not tokens.text[place].isspace()]
        edges = np.linspace(spans.starts[token], spans.ends[token], len(places) + 1)
        for place, (start, end) in zip(places, pairwise(edges), strict=True):
            shared.starts[place] = np.fmin(shared.starts[place], start)
            shared.ends[place] = np.fmax(shared.ends[place], end)
            shared.confidence[place] = max(shared.confidence[place], spans.confidence[token])
            shared.found[place] |= spans.found[token]
    return shared


def _found_shares(tokens: LyricTokens, found: Mask, structure: Structure) -> Doubles:
    """Return the share of each line's tokens that are found; 0 for a line without tokens."""
    owner = {place: i for i, line in enumerate(structure.lines) for _, places in line.words for place in places}
    owners = [next((owner[place] for place in range(*span) if place in owner), -1) for span in tokens.spans]
    of_line = np.array(owners)[None] == np.arange(len(structure.lines))[:, None]
    return (of_line & found).sum(axis=1) / np.maximum(1, of_line.sum(axis=1))


def _timed_words(structure: Structure, characters: _Spans, seconds: float) -> Iterator[TimedWord]:
    """Yield the words of all lines. None starts before the previous one, or ends after the next one starts."""
    texts = [word for line in structure.lines for word in line.words]
    times = np.array([_word_times(*word, characters, seconds) for word in texts]).round(3)
    starts = np.maximum.accumulate(times[:, 0])
    ends = np.clip(times[:, 1], starts, np.append(starts[1:], seconds))
    for (text, _), *values in zip(texts, starts.tolist(), ends.tolist(), times[:, 2].tolist(), strict=True):
        yield TimedWord(text, *values)


def _word_times(text: str, places: Sequence[int], characters: _Spans, seconds: float) -> tuple[float, float, float]:
    """Return start, end and confidence of a word from its letters. Punctuation often lasts through a pause."""
    letters = np.array([place for place, letter in zip(places, text, strict=True) if script_of(letter)] or places)
    timed = letters[~np.isnan(characters.starts[letters])]
    if not len(timed):  # beyond the last token that the model gets
        return seconds, seconds, 0.0
    chosen = timed[characters.found[timed]] if characters.found[timed].any() else timed
    return characters.starts[chosen].min(), characters.ends[chosen].max(), characters.confidence[timed].mean()


def _timed_line(line: SungLine, words: Sequence[TimedWord], share: float) -> TimedLine:
    """Return a line from its first to its last word that is found. The other words stay between these."""
    sung = [word for word in words if word.confidence] or words
    start, end = sung[0].start, sung[-1].end
    inside = (replace(word, start=_clip(word.start, start, end), end=_clip(word.end, start, end)) for word in words)
    confidence = sum(word.confidence or 0.0 for word in words) / len(words)
    return TimedLine(line.text, start, end, tuple(inside), line.section, round(share, 3), round(confidence, 3))


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _timed_sections(
    structure: Structure, lines: Sequence[TimedLine], starts: Doubles, seconds: float
) -> tuple[TimedSection, ...]:
    """Return the sections. One without lines, such as a solo, lasts from the line before to the line after it.

    starts: of the characters. Tags in the same gap divide it at their own places in the alignment.
    """
    bounds: list[tuple[float, float]] = []
    for index, section in enumerate(structure.sections):
        own = [line for line in lines if line.section == index]
        if own:
            bounds.append((own[0].start, own[-1].end))
            continue
        before = [line.end for line in lines if line.section is None or line.section < index]
        after = [line.start for line in lines if line.section is not None and line.section > index]
        low, high = max(before, default=0.0), min(after, default=round(seconds, 3))
        if index and bounds[-1][1] == high and low <= bounds[-1][0]:  # the section before is in the same gap
            tag = float(starts[section.place])
            low = high if np.isnan(tag) else round(_clip(tag, bounds[-1][0], high), 3)
            bounds[-1] = (bounds[-1][0], low)
        bounds.append((low, max(low, high)))
    return tuple(
        TimedSection(section.name, section.kind, section.label, *bound)
        for section, bound in zip(structure.sections, bounds, strict=True)
    )
