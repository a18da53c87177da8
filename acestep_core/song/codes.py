"""Audio codes as data: five numbers a second that hold the structure of a song, without its sound.

A song's codes are a tuple of ints. As text they are the planner's own tags, `<|audio_code_N|>`, one line a song;
numbers separated by commas or spaces are read, too. `song_file` keeps them beside their song.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import prod

from ..config import FRAME_RATE, FRAMES_PER_CODE, MAX_SECONDS, ModelConfig
from ..errors import RequestError

CODE_RATE = FRAME_RATE // FRAMES_PER_CODE  # codes a second
CODE_COUNT = prod(ModelConfig().fsq_input_levels)  # 64000 in every released model
MAX_CODES = MAX_SECONDS * CODE_RATE
LONGEST = 12  # digits that are read of a number: enough to see that it is no code

Codes = tuple[int, ...]

_NAME = "audio_code"
_TAG = re.compile(rf"<\|{_NAME}_(0|-?[1-9][0-9]*)\|>")  # as the planner spells it: 0007 is no token of its
_OTHER_TAG = re.compile(rf"<\|(?!{_NAME})\w+\|>")  # of the planner's, such as the end of its turn
_PIECE = re.compile(rf"\S*({_NAME}|<\||\|>)\S*")
_LIST = re.compile(r"\[?[\s,;]*(-?\d+(?:[\s,;]+-?\d+)*)?[\s,;]*\]?")


def parse_codes(text: str, count: int = CODE_COUNT) -> Codes:
    """The codes of one song: its tags, whatever stands between them, or a list of numbers. Empty text has none.

    `count` is how many codes the model knows. Raises RequestError for text that is neither, for tags that are cut off
    or misspelt, and for codes beyond `count`.
    """
    if _NAME in text and (piece := _PIECE.search(_OTHER_TAG.sub(" ", _TAG.sub(" ", text)))):
        raise RequestError(
            f"{_shortened(piece[0])!r} is a broken audio code; a whole one looks like <|audio_code_123|>, its number "
            "without leading zeros"
        )
    tags = _TAG.findall(text)
    listed = None if tags else _LIST.fullmatch(text.strip())
    if not tags and listed is None:
        raise RequestError(
            f"these are no audio codes: {_shortened(text)!r}; they look like <|audio_code_123|><|audio_code_45|>, or "
            "like 123, 45"
        )
    numbers = tags or re.findall(r"-?\d+", listed[1] or "")
    return check_codes([int(number[:LONGEST]) for number in numbers], count)


def parse_songs(text: str, count: int = CODE_COUNT) -> tuple[Codes, ...]:
    """The codes of several songs, one line each; empty lines count for nothing."""
    return tuple(parse_codes(line, count) for line in text.splitlines() if line.strip())


def format_codes(codes: Iterable[int]) -> str:
    """One song's codes as tags, the way the planner writes them."""
    return "".join(f"<|audio_code_{code}|>" for code in codes)


def format_songs(songs: Iterable[Iterable[int]]) -> str:
    """Several songs' codes, one line each."""
    return "\n".join(map(format_codes, songs))


def check_codes(codes: Sequence[int], count: int = CODE_COUNT) -> Codes:
    """The codes as a tuple, when each of them is one of `count` and there are not too many for a song."""
    for place, code in enumerate(codes):
        if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code < count:
            raise RequestError(
                f"audio codes are whole numbers from 0 to {count - 1}, got {code!r} in place {place + 1}"
            )
    if len(codes) > MAX_CODES:
        raise RequestError(
            f"a song has at most {MAX_CODES} audio codes ({MAX_SECONDS} s, {CODE_RATE} a second), got {len(codes)}"
        )
    return tuple(codes)


def seconds_of(codes: Sequence[int]) -> float:
    """How long the song of these codes is."""
    return len(codes) / CODE_RATE


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
