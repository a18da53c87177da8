"""Tags of every format, read back by our reader, by mutagen and by ffmpeg."""

import importlib.util
from dataclasses import replace

import av
import mutagen
import mutagen.id3
import mutagen.wave
import pytest
import soundfile
import torch

from acestep_core.audio import Tags, audio_files, measure_loudness, read_audio, read_settings, read_tags, write_audio
from acestep_core.audio.tags import lrc_text, timed_lines
from acestep_core.errors import RequestError
from tests.support.sounds import RATE, music

SUFFIXES = [".flac", ".ogg", ".opus", ".mp3", ".wav"]
SONG = music(0.5)
LRC = "[00:01.00]夜の歌\n[00:02.50]slow <00:02.80>river\n[01:03.25]"
FULL = Tags(
    title="Grüße 愛 🎵",
    artist="Ärzte & Söhne",
    album="№ 7",
    lyrics="[Verse]\n夜の歌\nslow river",
    timed_lyrics=LRC,
    bpm=92,
    key="C# minor",
    language="ja",
    extra={"prompt": '{"1": {}}', "workflow": '{"nodes": []}'},
)
HOSTILE = {
    "emoji": "👩‍👩‍👧‍👦🎵🏳️‍🌈",
    "right to left": "שלום \u202eevil\u202c مرحبا",
    "100 kB": "夜の歌 🎵\n" * 8000,
    "newlines": "a\n\nb\n",
    "CR": "a\rb\r\nc",
    "tab": "a\tb",
    "escape": "\x1b[31mred",
    "equals": "a=b==c=",
    "quotes": "\"'`\\",
    "BOM": "\ufeffa",
    "percent": "%s%n%d",
    "path": "../../etc/passwd",
    "HTML": "<script>alert(1)</script>",
    "JSON": '{"a": [1, "b"]}',
    "spaces": "  a  ",
    "one character": "x",
    "combining": "Z\u0338\u0321\u0322\u031b\u0317",
    "private": "\ue000\U0010ffff",
    "no character": "\uffff\ufffe",
    "line separator": "a\u2028b\u2029c",
    "DEL": "a\x7fb",
    "C1": "a\x85b\x9bc",
    "zero width": "a\u200bb\u2060c",
    "NFD": "e\u0301",
    "Latin-1": "äöü ÿ",
    "Cyrillic": "Привет",
    "half LRC": "[ti:x]\n[00:xx]",
    "ID3": "ID3\x04\x01TIT2",
    "Ogg": "OggS fLaC RIFF",
    "255 bytes": "a" * 255,
    "65 025 bytes": "a" * 65_025,
}
REFUSED = {"NUL": "a\0b", "lone surrogate": "a\ud800", "8 MB": "a" * (8 * 2**20 + 1), "a number": 5, "bytes": b"a"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tags")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tags_and_settings_are_read_back(folder, suffix):
    path = folder / f"full{suffix}"
    write_audio(path, SONG, settings={"seed": 1, "caption": "🎵"}, tags=FULL)
    assert read_tags(path) == FULL and read_settings(path) == {"seed": 1, "caption": "🎵"}
    assert read_audio(path).shape == (1, 2, SONG.shape[1])
    write_audio(folder / f"plain{suffix}", SONG)
    assert torch.equal(read_audio(path), read_audio(folder / f"plain{suffix}"))
    assert read_tags(folder / f"plain{suffix}") == Tags() and not Tags()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_ffmpeg_reads_the_tags(folder, suffix):
    path = folder / f"ffmpeg{suffix}"
    write_audio(path, SONG, settings={"seed": 1}, tags=FULL)
    with av.open(str(path)) as file:
        found = {name.lower(): value for name, value in {**file.metadata, **file.streams.audio[0].metadata}.items()}
        frames = sum(frame.samples for frame in file.decode(audio=0))
    assert (found["title"], found["artist"], found["album"]) == (FULL.title, FULL.artist, FULL.album)
    assert found["prompt"] == FULL.extra["prompt"] and abs(frames - SONG.shape[1]) < 3000


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_mutagen_reads_the_tags(folder, suffix):
    path = folder / f"mutagen{suffix}"
    write_audio(path, SONG, settings={"seed": 1}, tags=FULL)
    tags = mutagen.File(path).tags
    if suffix in (".mp3", ".wav"):
        assert (tags["TIT2"].text, tags["TBPM"].text, tags["TKEY"].text) == ([FULL.title], ["92"], ["C#m"])
        assert tags["TLAN"].text == ["jpn"] and tags["TXXX:workflow"].text == [FULL.extra["workflow"]]
        assert tags["USLT::jpn"].text == FULL.lyrics and tags.version == (2, 4, 0)
        sylt = tags["SYLT::jpn"]
        assert (sylt.format, sylt.type) == (2, 1)
        assert sylt.text == [("夜の歌", 1000), ("\nslow ", 2500), ("river", 2800), ("\n", 63250)]
    else:
        assert (tags["title"], tags["bpm"], tags["initialkey"]) == ([FULL.title], ["92"], ["C#m"])
        assert (tags["lyrics"], tags["unsyncedlyrics"], tags["language"]) == ([LRC], [FULL.lyrics], ["jpn"])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_survive(folder, suffix, name):
    value = HOSTILE[name]
    path, tags = folder / f"hostile{suffix}", Tags(title=value, lyrics=value, extra={"workflow": value})
    write_audio(path, SONG[:, :4800], tags=tags)
    assert read_tags(path) == tags and soundfile.info(path).frames == 4800
    native = mutagen.File(path).tags
    titles = native["TIT2"].text if suffix in (".mp3", ".wav") else native["title"]
    assert "".join(titles) == value.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("name", REFUSED)
def test_other_values_are_refused(name):
    for values in ({"title": REFUSED[name]}, {"lyrics": REFUSED[name]}, {"extra": {"workflow": REFUSED[name]}}):
        with pytest.raises(RequestError, match="title|lyrics|workflow|tags"):
            Tags(**values)


@pytest.mark.parametrize(
    ("values", "keyword"),
    [
        ({"bpm": 0}, "bpm"),
        ({"bpm": 90.5}, "bpm"),
        ({"bpm": True}, "bpm"),
        ({"key": "H"}, "key"),
        ({"language": "English"}, "language"),
        ({"timed_lyrics": "no times"}, "timed_lyrics"),
        ({"extra": {"a=b": "x"}}, "extra"),
        ({"extra": {"title": "x"}}, "extra"),
        ({"extra": {"ä": "x"}}, "extra"),
    ],
)
def test_values_that_mean_nothing_are_refused(values, keyword):
    with pytest.raises(RequestError, match=keyword):
        Tags(**values)


def test_lrc_is_read_with_offsets_of_words_and_repeated_lines():
    text = "[ti:x]\n[00:10.5][00:02]chorus\n[00:05.123]<00:05.2>a <00:05.9>b\nno time\n"
    assert timed_lines(text) == [(2000, "chorus"), (5200, "\na "), (5900, "b"), (10500, "\nchorus")]
    assert timed_lines("") == timed_lines("plain\n[Verse]") == []
    assert lrc_text(timed_lines(LRC)) == LRC


def test_tags_of_other_programs_are_read(folder):
    path = folder / "other.mp3"
    soundfile.write(path, SONG.T.numpy(), RATE)
    tags = mutagen.id3.ID3()
    tags.add(mutagen.id3.TIT2(encoding=1, text="Grüße 🎵"))
    tags.add(mutagen.id3.TBPM(encoding=0, text="91.7"))
    tags.add(mutagen.id3.TKEY(encoding=0, text="unknown"))
    tags.add(mutagen.id3.USLT(encoding=1, lang="deu", desc="ä", text="Zeile 1\nZeile 2"))
    tags.add(mutagen.id3.SYLT(encoding=1, lang="deu", format=2, type=1, desc="", text=[("la", 500), ("\nlu", 900)]))
    for version in (3, 4):
        tags.save(path, v2_version=version)
        found = read_tags(path)
        assert (found.title, found.bpm, found.key) == ("Grüße 🎵", 91, None)
        assert found.lyrics == "Zeile 1\nZeile 2" and found.timed_lyrics == "[00:00.50]la\n[00:00.90]lu"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_tags_give_no_traceback(folder, suffix):
    path = folder / f"damaged{suffix}"
    write_audio(path, SONG[:, :4800], tags=FULL)
    whole = path.read_bytes()
    rng = torch.Generator().manual_seed(0)
    for cut in torch.randint(0, min(len(whole), 2000), (40,), generator=rng).tolist():
        broken = bytearray(whole)
        broken[cut] ^= 0xFF
        for content in (broken, whole[:cut]):
            path.write_bytes(content)
            assert isinstance(read_tags(path), Tags)


def test_a_file_that_is_not_there_is_refused(folder):
    for path in (folder / "nothing.mp3", folder, "a\0"):
        with pytest.raises(RequestError, match="cannot be read"):
            read_tags(path)


def test_opus_has_few_sample_rates(folder):
    with pytest.raises(RequestError, match="48000"):
        write_audio(folder / "a.opus", SONG, 44100)


def test_m4a_keeps_what_it_has_a_place_for(folder, caplog):
    path = folder / "a.m4a"
    write_audio(path, music(2), settings={"seed": 1, "caption": "🎵"}, tags=FULL)
    expected = replace(FULL, timed_lyrics="", key=None, extra={})
    assert read_tags(path) == expected and read_settings(path) == {"seed": 1, "caption": "🎵"}
    assert "times of the lyrics, INITIALKEY, prompt, workflow" in caplog.messages[0]
    native = mutagen.File(path).tags
    assert (native["©nam"], native["tmpo"], native["©lyr"]) == ([FULL.title], [92], [FULL.lyrics])
    with av.open(str(path)) as file:
        sound = torch.cat([torch.from_numpy(frame.to_ndarray()) for frame in file.decode(audio=0)], dim=-1)
    levels = [measure_loudness(each[:, : 2 * RATE], RATE).integrated for each in (sound, music(2))]
    assert levels[0] == pytest.approx(levels[1], abs=0.2)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_survive_in_m4a(folder, name):
    path, tags = folder / "hostile.m4a", Tags(title=HOSTILE[name], lyrics=HOSTILE[name])
    write_audio(path, SONG[:, :4800], tags=tags)
    assert read_tags(path) == tags
    whole = path.read_bytes()
    for size in range(0, len(whole), 1 + len(whole) // 20):
        path.write_bytes(whole[:size])
        assert isinstance(read_tags(path), Tags)


def test_m4a_needs_pyav(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="pip install av"):
        write_audio(folder / "b.m4a", SONG)


def test_m4a_that_cannot_be_written_keeps_the_old_file(folder, monkeypatch):
    path = folder / "old.m4a"
    path.write_bytes(b"old")
    for rate, waveform in ((4000, SONG), (RATE, SONG[:1].expand(3, -1))):
        with pytest.raises(RequestError, match="M4A"):
            write_audio(path, waveform, rate)
    with pytest.raises(RequestError, match="no settings"):
        read_settings(path)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audio_files._Recorder, "write", lambda self, data: self._keep_error(0, refuse))
    with pytest.raises(RequestError, match="No space left"):
        write_audio(path, SONG)
    assert path.read_bytes() == b"old"
