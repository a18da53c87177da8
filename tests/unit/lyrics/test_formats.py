from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from acestep_core.errors import RequestError
from acestep_core.lyrics.formats import SUFFIXES, format_times, parse_times, write_times
from acestep_core.lyrics.scores import LyricScore
from acestep_core.lyrics.times import LyricTimes, TimedLine, TimedSection, TimedWord

CHINESE, STARTS = ("你", "好，", "世", "界"), (65.04, 65.44, 65.84, 66.24)
TIMES = LyricTimes(
    lines=(
        TimedLine("slow river", 4.0, 6.5, (TimedWord("slow", 4.0, 5.0), TimedWord("river", 5.12, 6.5)), 0, 1.0, 0.8),
        TimedLine("你好，世界", 65.04, 67.0, tuple(map(TimedWord, CHINESE, STARTS, [*STARTS[1:], 66.64])), 1),
        TimedLine("ocean & <fire>", 67.5, 70.25, (), 1, 0.2, 0.1),
    ),
    sections=(TimedSection("Verse", "verse", "Verse", 4.0, 6.5), TimedSection("Hook", "chorus", "Hook", 65.04, 70.25)),
    duration=75.0,
    score=LyricScore(1.0, 0.9, 0.5),
)  # fmt: skip


def spans(times):
    return [(line.text, line.start, line.end) for line in times.lines]


def test_json_keeps_everything():
    assert LyricTimes.from_json(TIMES.to_json()) == TIMES == parse_times(TIMES.to_json())
    assert json.loads(TIMES.to_json())["score"]["value"] == pytest.approx(0.405)


def test_lrc():
    assert format_times(TIMES, "lrc", "Rivers [live]", "Nano") == (
        "[ti:Rivers [live)]\n[ar:Nano]\n[length:01:15]\n"
        "[00:04.00]slow river\n[00:06.50]\n[01:05.04]你好，世界\n[01:07.50]ocean & <fire>\n[01:10.25]\n"
    )
    read = parse_times(format_times(TIMES, "lrc"))
    assert spans(read)[0] == ("slow river", 4.0, 6.5) and read.duration == 75
    assert spans(read)[1] == ("你好，世界", 65.04, 67.5)  # until the next line, as the pause is short


def test_lrc_with_word_times():
    text = format_times(TIMES, "elrc")
    assert "[00:04.00]<00:04.00>slow <00:05.12>river<00:06.50>\n" in text
    assert "[01:05.04]<01:05.04>你<01:05.44>好，<01:05.84>世<01:06.24>界<01:07.00>\n" in text
    read = parse_times(text)
    assert [word.text for word in read.lines[1].words] == ["你", "好，", "世", "界"]
    assert [(word.text, word.start, word.end) for word in read.lines[0].words] == [
        ("slow", 4.0, 5.12),
        ("river", 5.12, 6.5),
    ]
    assert [line.text for line in read.lines] == [line.text for line in TIMES.lines]


def test_srt_and_vtt():
    srt, vtt = format_times(TIMES, "srt"), format_times(TIMES, "vtt")
    assert srt.startswith("1\n00:00:04,000 --> 00:00:06,500\nslow river\n\n2\n00:01:05,040 -->")
    assert vtt.startswith("WEBVTT\n\n00:00:04.000 --> 00:00:06.500\nslow river\n\n")
    assert "ocean &amp; &lt;fire&gt;" in vtt and "ocean & <fire>" in srt
    assert spans(parse_times(srt)) == spans(parse_times(vtt)) == spans(TIMES)


def test_files_of_other_programs_are_read():
    lrc = "\ufeff[ar:X]\r\n[offset:+500]\r\n[00:10.5][00:30]la la\r\n[00:12:25]oh\r\n\r\nno time\r\n"
    assert spans(parse_times(lrc)) == [("la la", 10.0, 11.75), ("oh", 11.75, 29.5), ("la la", 29.5, 29.5)]
    srt = "00:00:01,000 --> 00:00:02,500\ntwo\nrows\n\n\n7\n00:00:03,000 --> 00:00:04,000\nlast"
    assert spans(parse_times(srt)) == [("two rows", 1.0, 2.5), ("last", 3.0, 4.0)]
    vtt = "WEBVTT - lyrics\n\nNOTE by hand\n\nid\n00:01.000 --> 00:02.000 align:start\n<v Eve>hi &amp; <00:01.500>bye\n"
    assert spans(parse_times(vtt)) == [("hi & bye", 1.0, 2.0)]


PARTS = ["la", "river", "你好", "世", "きょう", "안녕",
         "שלום", "می‌خواهم", "👩‍👩‍👧", "🎵",
         "[00:01.00]", "<00:02.00>", "<i>", "&amp;", "-->", "00:00:01,000 --> 00:00:02,000", "WEBVTT", "{",
         "[ti:x]", "1", "\x00", "\u202e", "\u2028", "\x85", "é"]  # fmt: skip


def random_times(seed: int) -> LyricTimes:
    choose = random.Random(seed)
    time, lines = 0.0, []
    for _ in range(choose.randrange(8)):
        words = []
        time += choose.choice([0, 0.08, 0.3, 5])
        start = time
        for _ in range(choose.randrange(1, 5)):
            begin, time = time, time + choose.choice([0, 0.08, 0.64])
            words.append(TimedWord(choose.choice(PARTS), round(begin, 3), round(time, 3), 0.5))
            time += choose.choice([0, 0, 0.9])
        end = words[-1].end
        text = choose.choice([" ", "", "  "]).join(word.text for word in words)
        lines.append(
            TimedLine(text, round(start, 3), end, tuple(words) if choose.random() < 0.8 else (), None, 1.0, 0.5)
        )
    return LyricTimes(tuple(lines), (), round(time + choose.choice([0, 7]), 3))


@pytest.mark.parametrize("name", SUFFIXES)
def test_any_times_survive_the_round_trip(name):
    for seed in range(150):
        times = random_times(seed)
        text = format_times(times, name)
        if name == "json":
            assert parse_times(text) == times
        elif any(line.text.isprintable() and line.text.strip() for line in times.lines):
            read = parse_times(text)
            shown = [line for line in times.lines if any(c.isprintable() and c != " " for c in line.text)]
            assert len(read.lines) == len(shown), (seed, text)
            for line, expected in zip(read.lines, shown, strict=True):
                assert line.start == pytest.approx(expected.start, abs=0.0051), (seed, text)
                assert line.end >= line.start and all(line.start <= word.start <= word.end for word in line.words)
                if name in ("srt", "vtt"):
                    assert line.end == pytest.approx(expected.end, abs=0.0011)
            assert format_times(read, name) == text, seed  # nothing more is lost


def test_sidecars_have_the_name_of_the_song(tmp_path):
    paths = write_times(tmp_path / "my song.flac", TIMES, ["lrc", "srt", "json"])
    assert [path.name for path in paths] == ["my song.lrc", "my song.srt", "my song.lyrics.json"]
    assert parse_times(paths[2].read_text("utf-8")) == TIMES
    with pytest.raises(RequestError, match="lrc and elrc"):
        write_times(tmp_path / "song.flac", TIMES, ["lrc", "elrc"])


def json_of(**values) -> str:
    return json.dumps({"format": "acestep-lyric-times", "duration": 1, **values})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no times", "no times"),
        ("", "no times"),
        ("{", "not valid JSON"),
        ("{}", "format must be"),
        (json_of(duration=-1), "duration must be a number"),
        (json_of(lines=3), "lines must be a list"),
        (json_of(lines=[{"text": 1}]), "text must be text"),
        (json_of(lines=[{"text": "a", "start": 2, "end": 1}]), "end must"),
        (json_of(lines=[{"text": "a", "start": 0, "end": 1, "section": 0}]), "section must"),
        (json_of(score=3), "score must"),
    ],
)
def test_unusable_texts_are_refused(text, message):
    with pytest.raises(RequestError, match=message):
        parse_times(text)


def test_an_unknown_format_is_refused():
    with pytest.raises(RequestError, match="'ass'.*choose json"):
        format_times(replace(TIMES), "ass")
