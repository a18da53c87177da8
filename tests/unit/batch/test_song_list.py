"""Lists of songs in all their forms."""

import json

import pytest

from acestep_core import RequestError
from acestep_core.batch.song_list import read_song_list


def test_a_bad_line_costs_that_line(tmp_path):
    path = tmp_path / "songs.jsonl"
    path.write_text('\ufeff{"caption": "one"}\n\nnot json\n[1]\n{"caption": "two"}', encoding="utf-8")
    songs = read_song_list(path)
    assert [song.number for song in songs] == [1, 2, 3, 4]
    assert [dict(song.fields) for song in songs] == [{"caption": "one"}, {}, {}, {"caption": "two"}]
    assert "songs.jsonl, line 3" in songs[1].error and "JSON" in songs[1].error and "line 4" in songs[2].error


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_has_objects_and_empty_cells(tmp_path, delimiter):
    path = tmp_path / "songs.csv"
    rows = [["caption", "lyrics", "plan", "plan.seed"], ["one", '"a\nb"', "", "3"], ["two", "", "yes", ""], ["x"] * 5]
    path.write_text("\r\n".join(delimiter.join(row) for row in rows), encoding="utf-8")
    one, two, bad = read_song_list(path)
    assert one.fields == {"caption": "one", "lyrics": "a\nb", "plan": {"seed": "3"}}
    assert two.fields == {"caption": "two", "plan": "yes"}
    assert "5 cells" in bad.error and "line 5" in bad.error


def test_a_folder_of_song_files(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps({"songs": [{"caption": "one"}, {"caption": "two"}]}))
    (tmp_path / "a.json").write_text('{"caption": "first", "bpm": 90}')
    (tmp_path / "c.json").write_text('{"tempo": 90}')
    (tmp_path / "notes.md").write_text("no song")
    songs = read_song_list(tmp_path)
    assert [song.name for song in songs] == ["a", "b-1", "b-2", "c"]
    assert songs[0].fields["bpm"] == 90 and songs[2].fields["caption"] == "two" and "tempo" in songs[3].error


@pytest.mark.parametrize("name", ["missing.jsonl", "empty.jsonl", "header.csv", "folder"])
def test_a_list_without_songs_is_refused(tmp_path, name):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "header.csv").write_text("caption\n")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RequestError, match=name.partition(".")[0]):
        read_song_list(tmp_path / name)
