import io
import json

import pytest

from acestep_core.errors import RequestError
from acestep_core.files import write_text
from acestep_core.song.codes import format_codes
from acestep_core.song.song import Metadata, Song
from acestep_core.song.song_file import FIELDS, SavedSong, load_codes, load_songs, save_songs, to_json

TEXTS = ("caption", "lyrics", "key", "time_signature", "language", "genres", "bpm")
NO_TEXT = ("[]", '["en"]', "{}", "0.5", "true")
SONG = Song("jazz, 爵士", "[Verse]\nla", Metadata(bpm=90, key="C# minor", duration=12.5))
FULL = SavedSong(SONG, (1, 2, 3), "Ambient", 7, 0.5)


def test_saved_songs_are_loaded_back(tmp_path):
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
    assert {*json.loads(text)} <= {*FIELDS}
    write_text(tmp_path / "a.json", text)
    assert load_songs(tmp_path / "a.json") == (song,)
    assert len(json.loads(to_json([song, song]))["songs"]) == 2


def test_the_timed_song_has_the_duration_of_its_codes():
    assert SavedSong(SONG, (1,) * 50).timed_song == Song(
        SONG.caption, SONG.lyrics, Metadata(bpm=90, key="C# minor", duration=10)
    )
    assert SavedSong(codes=(1,) * 50).timed_song == Song("", metadata=Metadata(duration=10))


def test_a_text_file_has_the_codes_of_one_song_per_line(tmp_path):
    (tmp_path / "a.txt").write_text("<|audio_code_5|><|audio_code_6|>\n\n7, 8\n")
    assert load_songs(tmp_path / "a.txt") == (SavedSong(codes=(5, 6)), SavedSong(codes=(7, 8)))


def test_standard_input_is_read(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(to_json([FULL]).encode()), encoding="cp1252"))
    assert load_songs("-") == (FULL,)


def test_null_values_are_unknown(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({name: None for name in FIELDS}))
    assert load_songs(tmp_path / "a.json") == (SavedSong(),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ('{"format": "else", "songs": []}', "not a song file"),
        ('{"songs": 3}', "not a song file"),
        ('{"songs": [], "titles": []}', "not a song file"),
        ('{"songs": [3]}', "must be an object"),
        ('{"tempo": 90}', "'tempo'.* caption, lyrics, bpm, key"),
        ('{"songs": [{"Caption": "x"}]}', "'Caption'"),
        ('{"codes": 3}', "codes .* got 3"),
        ('{"codes": [1, 64000]}', "got 64000"),
        ('{"codes": "<|audio_code_1|><|audio_code_"}', "broken tag"),
        ('{"bpm": 9}', "BPM"),
        ('{"caption": 3}', "caption .* int"),
        ('{"genres": 3}', "genres .* int"),
        ('{"seed": "7"}', "seed .* '7'"),
        ('{"score": true}', "score .* True"),
        ("la la la", "parse 'la la la'"),
        ('{"caption": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested"),
        ('{"bpm": ' + "[" * 300 + "]" * 300 + "}", "nested"),
        ('{"duration": 1' + "0" * 400 + "}", "digits"),
        ('{"seed": NaN}', "NaN"),
        ('{"genres": "\\ud800"}', "Unicode"),
        *((f'{{"{name}": {value}}}', name if name != "bpm" else "BPM") for name in TEXTS for value in NO_TEXT),
    ],
)
def test_an_invalid_file_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(RequestError, match=f"^[^ ]*a.json.*{message}"):
        load_songs(tmp_path / "a.json")


@pytest.mark.parametrize("content", ["{}", "", '{"songs": []}', '{"songs": [{"codes": "1"}, {"caption": "x"}]}'])
def test_load_codes_refuses_songs_without_codes(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(RequestError, match="a.json has no audio codes"):
        load_codes(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"codes": "1, 2"}')
    assert load_codes(tmp_path / "a.json") == (SavedSong(codes=(1, 2)),)


def test_the_codebook_size_limits_codes(tmp_path):
    (tmp_path / "a.json").write_text('{"codes": [100]}')
    with pytest.raises(RequestError, match="0 to 99, got 100"):
        load_songs(tmp_path / "a.json", count=100)


def test_inaccessible_files_are_refused_by_name(tmp_path):
    with pytest.raises(RequestError, match="song file .*none.json"):
        load_songs(tmp_path / "none.json")
    with pytest.raises(RequestError, match="a.json cannot be written"):
        save_songs(tmp_path / "nowhere" / "a.json", [FULL])
    with pytest.raises(RequestError, match="File name too long"):
        save_songs(tmp_path / f"{'long' * 63}.json", [FULL])
