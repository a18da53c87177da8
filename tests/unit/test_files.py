"""Output files: written completely or not at all, beside other runs and other files."""

import json
import os
import sys
from pathlib import Path

import pytest

from acestep_core.errors import RequestError
from acestep_core.files import atomic_write, check_output_path, parse_json, reserve, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_error_keeps_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "a.txt") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_disk_that_is_full_at_the_end_keeps_the_old_file(tmp_path, monkeypatch):
    """Network file systems report a full disk when the file is synchronised."""

    def full(descriptor):
        raise OSError(28, "No space left on device")

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RequestError, match=r"a\.txt .*No space left"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_two_runs_that_write_one_file_do_not_mix(tmp_path):
    with atomic_write(tmp_path / "a.txt") as first:
        first.write(b"one")
        first.flush()
        with atomic_write(tmp_path / "a.txt") as second:
            second.write(b"seven")
        assert (tmp_path / "a.txt").read_text() == "seven"
    assert (tmp_path / "a.txt").read_text() == "one" and names(tmp_path) == ["a.txt"]


def test_hidden_files_of_the_user_stay(tmp_path):
    for suffix in ("attempt", "partial"):
        (tmp_path / f".a.txt.{suffix}").write_text("mine")
    write_text(check_output_path(tmp_path / "a.txt"), "new")
    assert names(tmp_path) == [".a.txt.attempt", ".a.txt.partial", "a.txt"]
    assert (tmp_path / ".a.txt.partial").read_text() == "mine"


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "target").write_text("mine")
    for name in ("a.txt", ".a.txt.partial"):
        (tmp_path / name).symlink_to(tmp_path / "target")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "target").read_text() == "mine"
    assert (tmp_path / "a.txt").read_text() == "new" and not (tmp_path / "a.txt").is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs in folders")
def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match="device"):
        check_output_path(tmp_path / "pipe")


def test_the_first_free_name_is_reserved(tmp_path):
    (tmp_path / "1").write_text("taken")
    (tmp_path / "2").symlink_to(tmp_path / "nowhere")
    with reserve(tmp_path / str(number) for number in range(1, 9)) as path:
        assert path.name == "3" and path.read_bytes() == b""
        write_text(path, "song")
    assert names(tmp_path) == ["1", "2", "3"] and (tmp_path / "3").read_text() == "song"
    with pytest.raises(ZeroDivisionError), reserve([tmp_path / "4"]):
        raise ZeroDivisionError
    assert names(tmp_path) == ["1", "2", "3"]


def test_an_unwritable_folder_reserves_nothing(tmp_path):
    with pytest.raises(RequestError, match="cannot be written"), reserve([tmp_path / "missing" / "a"]):
        pass


def test_json_of_usual_depth_is_parsed():
    content = {"songs": [{"codes": [1, 2**64 - 1], "score": -0.5, "caption": None}]}
    assert parse_json(json.dumps(content)) == content


BROKEN = ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 30 + "1" + "}" * 30, "1" * 21, "NaN", "-Infinity", ""]


@pytest.mark.parametrize("text", BROKEN)
def test_json_that_no_program_of_ours_writes_is_refused(text):
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.skipif(sys.platform == "win32", reason="names are UTF-16 on Windows")
def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    with pytest.raises(RequestError, match="UTF-8"):
        check_output_path(tmp_path / os.fsdecode(b"\xff.flac"))
