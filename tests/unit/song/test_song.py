from __future__ import annotations

import dataclasses
import itertools
import math
import subprocess
import sys

import pytest

from acestep_core.errors import RequestError
from acestep_core.song.languages import LANGUAGES
from acestep_core.song.song import Metadata, Song


@pytest.mark.parametrize("value", [0.04, 1, 9.99, 10, 30.5, 600, 600.0])
def test_valid_duration(value):
    assert Metadata(duration=value).duration == float(value)


@pytest.mark.parametrize("value", [0, -1, 601, 600.01, math.nan, math.inf, -math.inf, True, "30", [30]])
def test_bad_duration(value):
    with pytest.raises(RequestError, match="duration .* 600"):
        Metadata(duration=value)


def test_a_duration_shorter_than_in_training_gives_a_warning():
    assert "shorter" in Song("x", metadata=Metadata(duration=5)).warnings[0]
    assert Song("x", metadata=Metadata(duration=10)).warnings == ()


@pytest.mark.parametrize("value", [30, 120, 300, 120.0])
def test_valid_bpm(value):
    bpm = Metadata(bpm=value).bpm
    assert bpm == value and type(bpm) is int


@pytest.mark.parametrize("value", [29, 301, 0, -5, 120.5, math.nan, math.inf, True, "120"])
def test_bad_bpm(value):
    with pytest.raises(RequestError, match="BPM .* 30 to 300"):
        Metadata(bpm=value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("C# minor", "C# minor"),
        ("c# minor", "C# minor"),
        ("C♯ Minor", "C# minor"),
        ("  c♯   MIN ", "C# minor"),
        ("E♭ major", "Eb major"),
        ("eb MAJOR", "Eb major"),
        ("E flat major", "Eb major"),
        ("F-sharp minor", "F# minor"),
        ("b minor", "B minor"),
        ("bb minor", "Bb minor"),
        ("B♭m", "Bb minor"),
        ("Am", "A minor"),
        ("AM", "A major"),
        ("Amaj", "A major"),
        ("G major", "G major"),
    ],
)
def test_key_is_normalised(text, key):
    assert Metadata(key=text).key == key


def test_all_trained_keys_are_accepted():
    for note, accidental, mode in itertools.product("ABCDEFG", ("", "#", "b", "♯", "♭"), ("major", "minor")):
        ascii_key = f"{note}{accidental.replace('♯', '#').replace('♭', 'b')} {mode}"
        assert Metadata(key=f"{note}{accidental} {mode}").key == ascii_key


@pytest.mark.parametrize("value", ["H major", "C", "C lydian", "C## minor", "major", "", "C#", "C ſharp minor", 5])
def test_unknown_key(value):
    with pytest.raises(RequestError, match="unknown key"):
        Metadata(key=value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [("2", "2"), ("3", "3"), ("4", "4"), ("6", "6"), (4, "4"), ("2/4", "2"), ("3/4", "3"), ("4/4", "4"), ("6/8", "6"),
     (" 4 / 4 ", "4")],
)  # fmt: skip
def test_time_signature_is_normalised(value, stored):
    assert Metadata(time_signature=value).time_signature == stored


@pytest.mark.parametrize("value", ["5", "7/8", "12/8", "4/8", "", "waltz", 5, 4.0, True])
def test_unknown_time_signature(value):
    with pytest.raises(RequestError, match="unknown time signature"):
        Metadata(time_signature=value)


def test_there_are_50_languages_and_unknown():
    assert len(LANGUAGES) == 51
    assert list(LANGUAGES)[-1] == "unknown"
    assert list(LANGUAGES)[:-1] == sorted(list(LANGUAGES)[:-1])


@pytest.mark.parametrize(("text", "code"), [("en", "en"), ("EN ", "en"), ("German", "de"), ("haitian creole", "ht")])
def test_language_is_normalised(text, code):
    assert Metadata(language=text).language == code


@pytest.mark.parametrize(
    ("text", "code"),
    [("jp", "ja"), ("en-US", "en"), ("zh_CN", "zh"), ("englsih", "en"), ("Portugese", "pt"), ("mandarin", "zh")],
)
def test_unknown_language_with_a_suggestion(text, code):
    with pytest.raises(RequestError, match=f"{text!r} .did you mean {code!r}.* ar, az"):
        Metadata(language=text)


@pytest.mark.parametrize("text", ["xx", "klingon", ""])
def test_unknown_language_without_a_suggestion(text):
    with pytest.raises(RequestError, match=f"unknown language {text!r}; allowed"):
        Metadata(language=text)


@pytest.mark.parametrize("lyrics", ["", "  \n\t"])
@pytest.mark.parametrize("language", [None, "en"])
def test_empty_lyrics_are_an_instrumental_in_no_language(lyrics, language):
    song = Song("x", lyrics, Metadata(language=language))
    assert (song.instrumental, song.prompt_lyrics, song.prompt_language) == (True, "[Instrumental]", "unknown")


def test_an_explicit_instrumental_tag_keeps_its_language():
    song = Song("x", "[instrumental]\n", Metadata(language="en"))
    assert (song.instrumental, song.prompt_lyrics, song.prompt_language) == (True, "[instrumental]\n", "en")


def test_lyrics_keep_their_blanks_and_language():
    song = Song("x", " [Verse]\n la ", Metadata(language="fr"))
    assert (song.instrumental, song.prompt_lyrics, song.prompt_language) == (False, " [Verse]\n la ", "fr")
    assert Song("x", "la").prompt_language is None


def test_line_ends_of_every_system_give_the_same_song():
    assert Song("a\r\nb", "c\rd\r\n") == Song("a\nb", "c\nd\n")


@pytest.mark.parametrize("field", ["caption", "lyrics"])
def test_text_must_be_text(field):
    good = {"caption": "x", "lyrics": "y"}
    with pytest.raises(RequestError, match=f"{field} .* int"):
        Song(**(good | {field: 3}))
    with pytest.raises(RequestError, match=f"{field} .* surrogate .* position 2"):
        Song(**(good | {field: "ab\ud800"}))


def test_metadata_must_be_metadata():
    with pytest.raises(RequestError, match="metadata .* dict"):
        Song("x", "y", {"bpm": 120})


def test_a_changed_copy_is_validated_again():
    song = Song("x", "la", Metadata(bpm=90, key="a min"))
    faster = dataclasses.replace(song, metadata=dataclasses.replace(song.metadata, bpm=140))
    assert faster == Song("x", "la", Metadata(bpm=140, key="A minor"))
    assert hash(faster) != hash(song)
    with pytest.raises(RequestError):
        dataclasses.replace(song.metadata, bpm=10)


def test_importing_the_song_package_imports_nothing_heavy():
    code = (
        "import sys, pkgutil, importlib, acestep_core.song as song;"
        "[importlib.import_module(f'{song.__name__}.{m.name}') for m in pkgutil.iter_modules(song.__path__)];"
        "import acestep_core.edit.tasks, acestep_core.text.prompts;"
        "print([m for m in ('torch', 'numpy', 'transformers', 'tokenizers', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
