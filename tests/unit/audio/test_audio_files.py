import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from acestep_core.audio import audio_files, check_audio_path, read_audio, read_settings, wav, write_audio
from acestep_core.audio.vorbis_comments import copy_with_comments
from acestep_core.errors import RequestError

SUFFIXES = [".wav", ".flac", ".ogg", ".opus", ".mp3"]
# Longer than libsndfile keeps in a RIFF comment, and with text that Latin-1 cannot hold.
LYRICS = "[Verse]\n夜の歌\n" * 2000
SETTINGS = {"seed": 2**63 + 7, "caption": 'Grüße "愛" 🎵', "lyrics": LYRICS, "shift": 3.0, "bpm": None}


def song(seconds: float = 1.0) -> torch.Tensor:
    t = torch.arange(int(seconds * 48000)) / 48000
    return 0.5 * torch.stack([torch.sin(2 * torch.pi * 440 * t), torch.sin(2 * torch.pi * 554 * t)])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_song_and_its_settings_are_read_back(tmp_path, suffix):
    path = tmp_path / f"song{suffix}"
    write_audio(path, song(), settings=SETTINGS)
    result = read_audio(path)
    assert result.shape == (1, 2, 48000) and result.dtype == torch.float32
    lossless = suffix in (".wav", ".flac")
    assert (result[0] - song()).abs().max() < (2**-22 if lossless else 0.1)
    assert read_settings(path) == SETTINGS
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_minute_of_vorbis_does_not_crash_libsndfile(tmp_path):
    path = tmp_path / "song.ogg"
    write_audio(path, torch.rand(1, 2, 60 * 48000) * 0.1)
    info = soundfile.info(path)
    assert (info.frames, info.samplerate, info.channels) == (60 * 48000, 48000, 2)


def test_other_rates_and_channel_counts_are_read_as_stereo_48_khz(tmp_path):
    path = tmp_path / "mono.wav"
    soundfile.write(path, song()[0, ::2].numpy(), 24000)
    result = read_audio(path)
    assert result.shape == (1, 2, 48000)
    assert torch.equal(result[0, 0], result[0, 1])


def test_writing_replaces_a_file(tmp_path):
    path = tmp_path / "song.flac"
    path.write_bytes(b"old")
    write_audio(path, song())
    assert soundfile.info(path).frames == 48000


def test_a_wav_with_an_odd_chunk_before_the_settings_is_read(tmp_path):
    path = tmp_path / "song.wav"
    write_audio(path, song(), settings={"seed": 1})
    data = path.read_bytes()
    odd = b"abcd" + (3).to_bytes(4, "little") + b"xyz\0"
    path.write_bytes(data[:12] + odd + data[12:])
    assert read_settings(path) == {"seed": 1}


def test_a_file_full_of_empty_chunks_is_given_up(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF" + bytes(2**16))
    with open(tmp_path / "a.wav", "rb") as file:
        assert len(list(wav._chunks(file))) == wav.MAX_CHUNKS


def test_settings_behind_the_tags_of_other_programs_are_found(tmp_path):
    path = tmp_path / "song.wav"
    write_audio(path, song(), settings={"seed": 1})
    data = path.read_bytes()
    title = b"INAM" + (5).to_bytes(4, "little") + b"Name\0\0"
    at = data.index(b"LIST")
    size = int.from_bytes(data[at + 4 : at + 8], "little") + len(title)
    path.write_bytes(data[:at] + b"LIST" + size.to_bytes(4, "little") + b"INFO" + title + data[at + 12 :])
    assert read_settings(path) == {"seed": 1}


def open_file(path: Path) -> soundfile.SoundFile:
    """Return a file of another program."""
    options = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    return soundfile.SoundFile(path, "w", samplerate=48000, channels=2, **options)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("comment", [None, "nice song", json.dumps([1]), json.dumps({"acestep": 3})])
def test_a_file_without_settings_is_refused(tmp_path, suffix, comment):
    path = tmp_path / f"other{suffix}"
    with open_file(path) as file:
        if comment is not None:
            file.comment = comment
        file.write(song().T.numpy())
    with pytest.raises(RequestError, match="no settings"):
        read_settings(path)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(RequestError, match="nothing.wav does not exist"):
        read_audio(tmp_path / "nothing.wav")
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(RequestError, match="cannot be read as audio"):
        read_audio(tmp_path / "text.wav")
    soundfile.write(tmp_path / "empty.wav", song()[:, :0].T.numpy(), 48000)
    with pytest.raises(RequestError, match="empty"):
        read_audio(tmp_path / "empty.wav")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".aiff", ".au", ".w64"])
def test_a_recording_that_is_cut_in_half_is_refused(tmp_path, suffix):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    soundfile.write(whole, torch.rand(4 * 48000, 2).numpy() - 0.5, 48000)
    assert read_audio(whole).shape == (1, 2, 4 * 48000)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(RequestError, match=r"cut\.\w+ .*cut off.* seconds"):
        read_audio(cut)


def test_an_ogg_file_that_is_cut_in_half_is_read_with_a_warning(tmp_path, caplog):
    """Recordings of a radio stream look like this."""
    soundfile.write(tmp_path / "whole.ogg", torch.rand(4 * 48000, 2).numpy() - 0.5, 48000)
    assert read_audio(tmp_path / "whole.ogg").shape == (1, 2, 4 * 48000) and not caplog.messages
    whole = (tmp_path / "whole.ogg").read_bytes()
    (tmp_path / "cut.ogg").write_bytes(whole[: len(whole) // 2])
    assert 48000 < read_audio(tmp_path / "cut.ogg").shape[2] < 3 * 48000
    assert "cut off" in caplog.messages[0]


def test_a_few_missing_samples_are_no_cut(tmp_path):
    soundfile.write(tmp_path / "a.wav", torch.rand(48000, 2).numpy() - 0.5, 48000)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:-1000])
    assert read_audio(tmp_path / "a.wav").shape == (1, 2, 47750)


@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF])
@pytest.mark.parametrize("data", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_of_unknown_length_is_read(tmp_path, riff, data):
    """Programs that write to a pipe cannot go back and fill in the length."""
    path = tmp_path / "a.wav"
    soundfile.write(path, torch.rand(48000, 2).numpy() - 0.5, 48000, subtype="PCM_24")
    whole, content = read_audio(path), bytearray(path.read_bytes())
    content[4:8], content[40:44] = riff.to_bytes(4, "little"), data.to_bytes(4, "little")
    path.write_bytes(content)
    assert torch.equal(read_audio(path), whole)


def test_a_flac_of_unknown_length_is_read(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, torch.rand(3 * 48000, 2).numpy() - 0.5, 48000)
    whole, content = read_audio(path), bytearray(path.read_bytes())
    content[21] &= 0xF0  # the number of samples: the last 36 bits of these 8 bytes
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert torch.equal(read_audio(path), whole)


def test_a_recording_is_checked_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(soundfile.SoundFile, "read", None)
    soundfile.write(tmp_path / "slow.wav", torch.zeros(40_000, 1).numpy(), 1)  # 48000 times as much at 48 kHz
    with pytest.raises(RequestError, match=r"slow\.wav.*4000 to 384000 Hz, got 1\b"):
        read_audio(tmp_path / "slow.wav")
    soundfile.write(tmp_path / "fast.wav", torch.zeros(4000, 1).numpy(), 2_000_000)
    with pytest.raises(RequestError, match="384000"):
        read_audio(tmp_path / "fast.wav")
    soundfile.write(tmp_path / "long.flac", torch.zeros(601 * 4000, 8).numpy(), 4000)
    with pytest.raises(RequestError, match=r"long\.flac.*600 seconds"):
        read_audio(tmp_path / "long.flac")


def test_a_recording_of_unknown_length_may_last_600_seconds(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, torch.zeros(601 * 4000, 1).numpy(), 4000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(RequestError, match="600 seconds"):
        read_audio(path)


def test_more_than_two_channels_are_read_with_a_warning(tmp_path, caplog):
    channels = torch.rand(4800, 6) - 0.5
    soundfile.write(tmp_path / "a.wav", channels.numpy(), 48000, subtype="FLOAT")
    assert torch.equal(read_audio(tmp_path / "a.wav")[0], channels[:, :2].T)
    assert "first 2 of 6" in caplog.messages[0]


@pytest.mark.parametrize("name", ["long" * 70 + ".wav", "a\0.wav", "folder.wav", "\udcff.wav"])
def test_a_name_that_is_no_file_is_refused(tmp_path, name):
    (tmp_path / "folder.wav").mkdir()
    for read in (read_audio, read_settings):
        with pytest.raises(RequestError):
            read(tmp_path / name)


def test_a_file_holds_one_song(tmp_path):
    with pytest.raises(RequestError, match=r"one song.*shape \[2, 2, 100\]"):
        write_audio(tmp_path / "songs.wav", torch.zeros(2, 2, 100))


def test_unwritable_names_are_refused(tmp_path):
    with pytest.raises(RequestError, match=r"\.wav, \.flac, \.ogg, \.opus, \.mp3, \.m4a"):
        check_audio_path(tmp_path / "song.aac")
    with pytest.raises(RequestError, match="does not exist"):
        check_audio_path(tmp_path / "missing" / "song.wav")
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(RequestError, match="is a folder"):
        check_audio_path(tmp_path / "folder.wav")
    check_audio_path(tmp_path / f"{'long' * 62}.wav")
    with pytest.raises(RequestError, match="File name too long"):
        check_audio_path(tmp_path / f"{'long' * 63}.wav")


def test_a_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    def touch(path, exist_ok):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(RequestError, match="song.wav .*Permission denied"):
        check_audio_path(tmp_path / "song.wav")


def test_checking_a_path_leaves_no_file(tmp_path):
    check_audio_path(tmp_path / "song.wav")
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import os, resource, sys
import torch
from acestep_core.audio import write_audio
from acestep_core.errors import RequestError

noise = torch.rand(2, 48000, generator=torch.Generator().manual_seed(0)) * 0.1 - 0.05
for path in sys.argv[1:]:
    for missing in (1, 100, 5000, 10**9):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        write_audio(path, noise, settings={"seed": 1})
        size = os.path.getsize(path)
        with open(path, "wb") as old:
            old.write(b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(0, size - missing), resource.RLIM_INFINITY))
        try:
            write_audio(path, noise, settings={"seed": 1})
        except RequestError as error:
            print(error, open(path).read())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of the file size")
def test_a_song_that_does_not_fit_keeps_the_old_file(tmp_path):
    """A limit of the file size acts like a full disk: libsndfile reports no error if its last write fails."""
    paths = [tmp_path / f"song{suffix}" for suffix in SUFFIXES]
    run = subprocess.run([sys.executable, "-c", LIMITED, *paths], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    expected = [f"{path} cannot be written: File too large old" for path in paths for _ in range(4)]
    assert run.stdout.splitlines() == expected
    assert len(list(tmp_path.iterdir())) == len(paths)


def test_a_song_that_cannot_be_read_back_keeps_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "song.flac").write_bytes(b"old")
    write = soundfile.SoundFile.write
    monkeypatch.setattr(soundfile.SoundFile, "write", lambda file, samples: write(file, samples[1:]))
    with pytest.raises(RequestError, match="47999 of 48000"):
        write_audio(tmp_path / "song.flac", song())
    assert (tmp_path / "song.flac").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_an_interrupt_reaches_the_caller_of_write_audio(tmp_path, monkeypatch):
    """libsndfile calls back into Python, where exceptions are dropped."""

    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(audio_files._Recorder, "write", lambda self, data: self._keep_error(0, stop))
    with pytest.raises(KeyboardInterrupt):
        write_audio(tmp_path / "song.flac", song())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("waveform", "rate", "settings", "keyword"),
    [
        (song() * float("nan"), 48000, None, "NaN"),
        (song() / 0, 48000, None, "infinite"),
        (song().numpy(), 48000, None, "tensor .* ndarray"),
        (song()[:, :0], 48000, None, "empty"),
        (torch.rand(9, 100), 48000, None, "cannot be written"),
        (song(), 1, None, "sample rate"),
        (song(), None, None, "sample rate"),
        (song(), 48000, {"a": torch.rand(1)}, "settings .*JSON"),
    ],
)
def test_audio_that_no_file_can_hold_is_refused(tmp_path, waveform, rate, settings, keyword):
    with pytest.raises(RequestError, match=keyword):
        write_audio(tmp_path / "song.flac", waveform, rate, settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_deeply_nested_settings_are_refused(tmp_path, suffix):
    path, comment = tmp_path / f"a{suffix}", '{"acestep": ' + '{"a":' * 50_000 + "1" + "}" * 50_001
    if suffix == ".wav":
        soundfile.write(path, song().T.numpy(), 48000)
        with open(path, "r+b") as file:
            wav.append_tags(file, {"COMMENT": comment})
    elif suffix == ".opus":  # libsndfile damages a file with a long comment
        soundfile.write(tmp_path / "plain.ogg", song().T.numpy(), 48000, format="OGG", subtype="OPUS")
        with open(tmp_path / "plain.ogg", "rb") as plain, open(path, "wb") as file:
            copy_with_comments(plain, file, {"COMMENT": comment})
    else:
        with open_file(path) as file:
            file.comment = comment
            file.write(song().T.numpy())
    with pytest.raises(RequestError, match="no settings"):
        read_settings(path)
