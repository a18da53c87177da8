"""Audio codes: five numbers per second that hold the structure of a song, but not its sound.

The codes of one song are a tuple of ints. As text they are the planner's tags, `<|audio_code_N|>`, one song per line.
Numbers separated by commas or spaces can be parsed too. `song_file` stores codes with their song.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..config import CODE_COUNT, FRAME_RATE, FRAMES_PER_CODE, MAX_SECONDS
from ..errors import RequestError

CODE_RATE = FRAME_RATE // FRAMES_PER_CODE  # codes per second
MAX_CODES = MAX_SECONDS * CODE_RATE
MAX_DIGITS = 12  # more digits are cut off: the number is out of range in any case, and int() refuses huge texts

Codes = tuple[int, ...]

_NAME = "audio_code"
_TAG = re.compile(rf"<\|{_NAME}_(0|-?[1-9][0-9]*)\|>")  # the planner has no token with leading zeros
_OTHER_TAG = re.compile(rf"<\|(?!{_NAME})\w+\|>")  # other planner tokens, such as the end of its turn
_MARK = re.compile(rf"{_NAME}|<\||\|>")  # left over from a broken tag
_NUMBER = re.compile(r"-?\d+")
_SEPARATOR = re.compile(r"[\s,;]+")


def parse_codes(text: str, count: int = CODE_COUNT) -> Codes:
    """Parse the codes of one song: tags with any text between them, or a list of numbers. Empty text has no codes.

    `count` is the codebook size of the model. Raises RequestError for any other text, for broken tags, and for codes
    outside of the codebook.
    """
    pieces = _OTHER_TAG.sub(" ", _TAG.sub(" ", text)).split() if _NAME in text else []
    broken = next(filter(_MARK.search, pieces), None)
    if broken is not None:
        raise RequestError(
            f"audio codes: {_shortened(broken)!r} is a broken tag; a valid tag looks like <|audio_code_123|>, "
            "without leading zeros"
        )
    numbers = _TAG.findall(text)
    if not numbers:
        listed = _SEPARATOR.split(text.strip().removeprefix("[").removesuffix("]"))
        numbers = [piece for piece in listed if piece]
        if not all(map(_NUMBER.fullmatch, numbers)):
            raise RequestError(
                f"audio codes: cannot parse {_shortened(text)!r}; codes look like <|audio_code_123|><|audio_code_45|> "
                "or 123, 45"
            )
    return check_codes([int(number[:MAX_DIGITS]) for number in numbers], count)


def parse_code_lines(text: str, count: int = CODE_COUNT) -> tuple[Codes, ...]:
    """Parse the codes of several songs, one per line. Empty lines are skipped. Raises RequestError."""
    return tuple(parse_codes(line, count) for line in text.splitlines() if line.strip())


def format_codes(codes: Iterable[int]) -> str:
    """Return the codes of one song as the planner's tags."""
    return "".join(f"<|audio_code_{code}|>" for code in codes)


def format_code_lines(songs: Iterable[Iterable[int]]) -> str:
    """Return the codes of several songs as tags, one song per line."""
    return "\n".join(map(format_codes, songs))


def check_codes(codes: Sequence[int], count: int = CODE_COUNT) -> Codes:
    """Return the codes as a tuple. Raises RequestError for a code outside of 0…count − 1, or for too many codes."""
    for place, code in enumerate(codes):
        if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code < count:
            raise RequestError(
                f"audio codes must be whole numbers from 0 to {count - 1}, got {code!r} in place {place + 1}"
            )
    if len(codes) > MAX_CODES:
        raise RequestError(
            f"audio codes: at most {MAX_CODES} for one song ({MAX_SECONDS} s, {CODE_RATE} per second), got {len(codes)}"
        )
    return tuple(codes)


def seconds_of(codes: Sequence[int]) -> float:
    """Return the duration in seconds of a song with these codes."""
    return len(codes) / CODE_RATE


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
