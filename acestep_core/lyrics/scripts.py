"""Scripts of characters: words of languages without spaces, syllables, and languages that a script shows."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from functools import lru_cache

_RANGES = (  # first and last code points, ascending
    (0x0041, 0x024F, "latin"), (0x0370, 0x03FF, "greek"), (0x0400, 0x052F, "cyrillic"), (0x0590, 0x05FF, "hebrew"),
    (0x0600, 0x077F, "arabic"), (0x0900, 0x097F, "devanagari"), (0x0980, 0x09FF, "bengali"),
    (0x0A00, 0x0A7F, "gurmukhi"), (0x0B80, 0x0BFF, "tamil"), (0x0C00, 0x0C7F, "telugu"), (0x0E00, 0x0E7F, "thai"),
    (0x0E80, 0x0EFF, "lao"), (0x1000, 0x109F, "burmese"), (0x1100, 0x11FF, "hangul"), (0x1780, 0x17FF, "khmer"),
    (0x1E00, 0x1EFF, "latin"), (0x1F00, 0x1FFF, "greek"), (0x3005, 0x3007, "han"), (0x3041, 0x3096, "kana"),
    (0x309D, 0x309F, "kana"), (0x30A1, 0x30FA, "kana"), (0x30FC, 0x30FF, "kana"), (0x3130, 0x318F, "hangul"),
    (0x31F0, 0x31FF, "kana"), (0x3400, 0x4DBF, "han"), (0x4E00, 0x9FFF, "han"), (0xAC00, 0xD7AF, "hangul"),
    (0xF900, 0xFAFF, "han"), (0xFB1D, 0xFB4F, "hebrew"), (0xFB50, 0xFDFF, "arabic"), (0xFE70, 0xFEFC, "arabic"),
    (0xFF66, 0xFF9F, "kana"), (0x20000, 0x323AF, "han"),
)  # fmt: skip
_STARTS = [first for first, _, _ in _RANGES]

# Small kana and the long-vowel mark belong to the kana before them.
_SMALL_KANA = frozenset("ぁぃぅぇぉゃゅょゎァィゥェォャュョヮーｧｨｩｪｫｬｭｮｰﾞﾟ")
_SPACELESS = frozenset({"han", "kana", "thai", "lao", "burmese", "khmer"})
_ABUGIDAS = frozenset({"devanagari", "bengali", "gurmukhi", "tamil", "telugu"})
_VOWELS = frozenset("aeiouyаеиоуыэюяіαεηιουωæøœı")  # of scripts that write each vowel, without accents

# Scripts of one language among the trained ones. Han is Chinese unless there are kana or Cantonese characters.
_SURE = {
    "hangul": "ko", "thai": "th", "hebrew": "he", "greek": "el", "bengali": "bn", "gurmukhi": "pa", "tamil": "ta",
    "telugu": "te",
}  # fmt: skip
_CANTONESE = frozenset("嘅咗喺哋冇嚟啲嗰乜咁佢睇")


@lru_cache(maxsize=4096)
def script_of(character: str) -> str:
    """Return the script of a letter, digit or symbol, "other" if it has none, or "" for marks and punctuation."""
    code = ord(character)
    if unicodedata.category(character)[0] in "MPCZ":
        return ""
    place = bisect_right(_STARTS, code) - 1
    return _RANGES[place][2] if place >= 0 and code <= _RANGES[place][1] else "other"


def split_words(text: str) -> list[tuple[int, int]]:
    """Return start and end of each word of a line.

    Spaces separate words. In addition each Chinese character is a word, each kana with the small ones that follow, and
    each run of one of the other scripts without spaces. Punctuation belongs to the word before, an opening bracket to
    the word after.
    """
    return [span for chunk in re.finditer(r"\S+", text) for span in _split_chunk(text, *chunk.span())]


def _split_chunk(text: str, start: int, end: int) -> list[tuple[int, int]]:
    spans, before, opening = [], "", None
    for i in range(start, end):
        script = script_of(text[i])
        if not script:
            if opening is None and unicodedata.category(text[i]) in ("Ps", "Pi"):
                opening = i
            continue
        script = script if script in _SPACELESS else "spaced"
        separate = script == "han" or (script == "kana" and text[i] not in _SMALL_KANA)
        if before and (separate or script != before):
            cut = i if opening is None else opening
            spans.append((start, cut))
            start = cut
        before, opening = script, None
    return [*spans, (start, end)]


def count_syllables(text: str) -> int:
    """Estimate the number of sung syllables of a text without tags."""
    return sum(_word_syllables(text[start:end]) for start, end in split_words(text))


def _word_syllables(word: str) -> int:
    plain = word.lower()
    script = Counter(filter(None, map(script_of, plain))).most_common(1)
    if not script:
        return 0
    name = script[0][0]
    letters = sum(script_of(character) not in ("", "other") for character in plain)
    if name in ("han", "hangul", "kana"):
        return sum(bool(script_of(character)) and character not in _SMALL_KANA - {"ー"} for character in plain)
    if name in _ABUGIDAS:
        joined = sum(unicodedata.name(character, "").endswith("SIGN VIRAMA") for character in plain)
        return max(1, letters - joined)
    if name in ("arabic", "hebrew", "thai", "lao", "burmese", "khmer"):
        return max(1, round(letters / 2.5))
    return _vowel_groups(plain)


def _vowel_groups(word: str) -> int:
    """Count the groups of vowels, without a final silent e, and the digits. At least 1."""
    parts = (unicodedata.normalize("NFD", character) for character in word)
    base = "".join(("-" if "\u0308" in part else "") + part[0] for part in parts)  # a vowel with two dots stands alone
    groups = len(re.findall(f"[{''.join(sorted(_VOWELS))}]+", base))
    if groups > 1 and re.search(r"[b-df-hj-kmnp-tv-z]e\W*$", word):
        groups -= 1
    return max(1, groups + sum(character.isdigit() for character in word))


def guess_language(text: str) -> str | None:
    """Return the code of the language that the script of a text shows, or None if several languages share the script.

    Latin words may stand between the others, as in many songs.
    """
    counts = Counter(script_of(character) for character in text)
    for other in ("", "other"):
        del counts[other]
    total, foreign = counts.total(), counts.total() - counts["latin"]
    if not foreign or 3 * foreign <= total:
        return None
    eastern = counts["han"] + counts["kana"]
    if 2 * eastern > foreign:
        cantonese = sum(character in _CANTONESE for character in text)
        if counts["kana"]:
            return "ja" if 10 * counts["kana"] >= eastern else None
        return "zh" if 100 * cantonese <= eastern else None
    return next((code for script, code in _SURE.items() if 2 * counts[script] > foreign), None)
