"""Songs in files: one format, whoever writes it and whoever reads it."""

import io
import json

import pytest

from acestep_core.errors import RequestError
from acestep_core.files import write_text
from acestep_core.song.codes import format_codes
from acestep_core.song.song import Metadata, Song
from acestep_core.song.song_file import NAMES, SavedSong, load_codes, load_songs, save_songs, to_json

SONG = Song("jazz, 爵士", "[Verse]\nla", Metadata(bpm=90, key="C# minor", duration=12.5))
FULL = SavedSong(SONG, (1, 2, 3), "Ambient", 7, 0.5)


def test_a_file_keeps_songs(tmp_path):
    songs = (FULL, SavedSong(codes=(4, 5)), SavedSong(SONG))
    save_songs(tmp_path / "a.json", songs)
    assert load_songs(tmp_path / "a.json") == songs
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    content = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert content["format"] == "acestep-audio-codes" and content["codes_per_second"] == 5
    assert content["songs"][1] == {"codes": format_codes((4, 5))}


@pytest.mark.parametrize("song", [FULL, SavedSong(codes=(4,)), SavedSong(Song("", "la")), SavedSong(Song("x"), seed=0)])
def test_one_song_is_one_object(tmp_path, song):
    text = to_json([song])
    assert {*json.loads(text)} <= {*NAMES}
    write_text(tmp_path / "a.json", text)
    assert load_songs(tmp_path / "a.json") == (song,)
    assert len(json.loads(to_json([song, song]))["songs"]) == 2


def test_the_song_of_codes_is_as_long_as_they_are():
    assert SavedSong(SONG, (1,) * 50).timed_song == Song(
        SONG.caption, SONG.lyrics, Metadata(bpm=90, key="C# minor", duration=10)
    )
    assert SavedSong(codes=(1,) * 50).timed_song == Song("", metadata=Metadata(duration=10))


def test_a_file_of_lines_is_read(tmp_path):
    (tmp_path / "a.txt").write_text("<|audio_code_5|><|audio_code_6|>\n\n7, 8\n")
    assert load_songs(tmp_path / "a.txt") == (SavedSong(codes=(5, 6)), SavedSong(codes=(7, 8)))


def test_standard_input_is_read(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(to_json([FULL]).encode()), encoding="cp1252"))
    assert load_songs("-") == (FULL,)


def test_what_is_null_is_not_known(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({name: None for name in NAMES}))
    assert load_songs(tmp_path / "a.json") == (SavedSong(),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no song in JSON"),
        ('{"format": "else", "songs": []}', "holds no songs: it was not written by acestep"),
        ('{"songs": 3}', "holds no songs"),
        ('{"songs": [], "titles": []}', "holds no songs"),
        ('{"songs": [3]}', "every song should be an object"),
        ('{"tempo": 90}', "'tempo' is nothing that a song has; it has caption, lyrics, bpm, key"),
        ('{"songs": [{"Caption": "x"}]}', "'Caption' is nothing that a song has"),
        ('{"codes": 3}', "codes should be text or a list of numbers, they are 3"),
        ('{"codes": [1, 64000]}', "whole numbers from 0 to 63999, got 64000"),
        ('{"codes": "<|audio_code_1|><|audio_code_"}', "is a broken audio code"),
        ('{"bpm": 9}', "BPM must be a whole number"),
        ('{"caption": 3}', "caption must be text"),
        ('{"genres": 3}', "genres must be text, got 3"),
        ('{"seed": "7"}', "seed must be a number, got '7'"),
        ('{"score": true}', "score must be a number, got True"),
        ("la la la", "these are no audio codes: 'la la la'"),
    ],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(RequestError, match=f"^[^ ]*a.json.*{message}"):
        load_songs(tmp_path / "a.json")


@pytest.mark.parametrize("content", ["{}", "", '{"songs": []}', '{"songs": [{"codes": "1"}, {"caption": "x"}]}'])
def test_a_file_without_codes_is_refused_where_they_are_needed(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(RequestError, match="a.json holds no audio codes; Plan Song and `acestep plan` write some"):
        load_codes(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"codes": "1, 2"}')
    assert load_codes(tmp_path / "a.json") == (SavedSong(codes=(1, 2)),)


def test_the_limit_is_that_of_the_model(tmp_path):
    (tmp_path / "a.json").write_text('{"codes": [100]}')
    with pytest.raises(RequestError, match="from 0 to 99, got 100"):
        load_songs(tmp_path / "a.json", count=100)


def test_files_that_cannot_be_reached_are_named(tmp_path):
    with pytest.raises(RequestError, match="the song file .*none.json cannot be read"):
        load_songs(tmp_path / "none.json")
    with pytest.raises(RequestError, match="cannot write .*a.json"):
        save_songs(tmp_path / "nowhere" / "a.json", [FULL])
    with pytest.raises(RequestError, match="cannot write .*: File name too long"):
        save_songs(tmp_path / f"{'long' * 62}.json", [FULL])
