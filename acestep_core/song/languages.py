"""The languages of the training data, by the codes of the trained prompt."""

from __future__ import annotations

from difflib import get_close_matches

from ..errors import RequestError

UNKNOWN = "unknown"

# Sorted by code; the code for "none or not known" comes last.
LANGUAGES: dict[str, str] = {
    "ar": "Arabic",
    "az": "Azerbaijani",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "ht": "Haitian Creole",
    "hu": "Hungarian",
    "id": "Indonesian",
    "is": "Icelandic",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "la": "Latin",
    "lt": "Lithuanian",
    "ms": "Malay",
    "ne": "Nepali",
    "nl": "Dutch",
    "no": "Norwegian",
    "pa": "Punjabi",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sa": "Sanskrit",
    "sk": "Slovak",
    "sr": "Serbian",
    "sv": "Swedish",
    "sw": "Swahili",
    "ta": "Tamil",
    "te": "Telugu",
    "th": "Thai",
    "tl": "Tagalog",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "yue": "Cantonese",
    "zh": "Chinese",
    UNKNOWN: "unknown or instrumental",
}

_CODE_OF_NAME = {name.lower(): code for code, name in LANGUAGES.items()}

# Country codes and other names, which are refused. The error suggests the code of the language.
_ALIASES: dict[str, str] = {
    "cn": "zh", "mandarin": "zh", "hk": "yue", "jp": "ja", "kr": "ko", "gr": "el", "cz": "cs", "dk": "da", "se": "sv",
    "ua": "uk", "br": "pt", "in": "hi", "ir": "fa", "farsi": "fa", "iw": "he", "il": "he", "nb": "no", "nn": "no",
    "fil": "tl", "filipino": "tl", "us": "en", "gb": "en", "at": "de", "mx": "es", "vn": "vi", "my": "ms",
}  # fmt: skip


def language_code(text: str) -> str:
    """Return the code of a language, given as a code or English name in any case. Raises RequestError."""
    name = text.strip().lower()
    if name in LANGUAGES:
        return name
    if name in _CODE_OF_NAME:
        return _CODE_OF_NAME[name]
    raise RequestError(f"language: unknown language {text!r}{_suggestion(name)}; allowed are {', '.join(LANGUAGES)}")


def _suggestion(name: str) -> str:
    base = name.replace("_", "-").split("-")[0]  # en-US, zh_CN
    code = _ALIASES.get(name) or (base if base in LANGUAGES else None)
    if code is None:
        # Compare names only: all two-letter codes resemble each other.
        close = get_close_matches(name, _CODE_OF_NAME, n=1, cutoff=0.7)
        code = _CODE_OF_NAME[close[0]] if close else None
    return f" (did you mean {code!r}, {LANGUAGES[code]}?)" if code else ""
