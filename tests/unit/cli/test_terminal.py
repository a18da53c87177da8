"""Progress bars and the lines between them."""

import io
import json
import logging
import re

import pytest

from acestep_core.callbacks import Progress
from acestep_core.cli.terminal import Terminal, log_lines, printable


class Screen(io.StringIO):
    """A stream that is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


def test_a_terminal_redraws_the_bar_below_other_lines():
    screen = Screen()
    terminal = Terminal(screen)
    terminal.progress(Progress("sample", 1, 2))
    terminal.line("a warning")
    terminal.progress(Progress("sample", 2, 2))
    lines = screen.getvalue().split("\n")
    assert lines[0].endswith("\ra warning")
    assert lines[1].count("\rsample ") >= 2 and lines[1].split("\r")[-1].startswith("sample") and "2/2" in lines[1]
    assert lines[2:] == [""]


def test_an_unfinished_bar_keeps_its_line():
    screen = Screen()
    terminal = Terminal(screen)
    terminal.progress(Progress("sample", 1, 2))
    terminal.close()
    terminal.line("acestep: stopped")
    first, second, _ = screen.getvalue().split("\n")
    assert "1/2" in first and second == "acestep: stopped"


def test_other_streams_get_one_line_per_finished_stage():
    stream = io.StringIO()
    terminal = Terminal(stream)
    for stage, steps in (("encode", [1]), ("sample", [0, 1, 2, 3]), ("decode", [0, 1])):
        for step in steps:
            terminal.progress(Progress(stage, step, max(3, steps[-1]) if stage == "decode" else steps[-1]))
    terminal.line("a warning")
    terminal.close()
    encode, sample, warning = stream.getvalue().splitlines()
    assert encode.startswith("encode ") and "1/1" in encode
    assert sample.startswith("sample ") and "3/3" in sample
    assert warning == "a warning"


@pytest.mark.parametrize(("encoding", "block"), [("utf-8", "█"), ("cp1252", "#")])
@pytest.mark.parametrize("live", [True, False])
def test_consoles_without_block_characters_get_ascii_bars(encoding, block, live):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    stream.isatty = lambda: live
    Terminal(stream).progress(Progress("encode", 1, 1))
    assert block in raw.getvalue().decode(encoding)


def test_the_bar_of_the_planner_shows_tokens_per_second(monkeypatch):
    clock = iter([0.0, 1.0, 5.0, 5.0, 7.0])
    monkeypatch.setattr("acestep_core.callbacks.time.perf_counter", lambda: next(clock))
    stream = io.StringIO()
    terminal = Terminal(stream)
    for stage, tokens in (("write", 40), ("write", 50), ("write", 60), ("codes", 4), ("codes", 8)):
        terminal.progress(Progress(stage, tokens, 60 if stage == "write" else 8, tokens=tokens))
    # Tokens before the first report of a stage do not count.
    assert re.findall(r" (\d+) tokens/s", stream.getvalue()) == ["4", "2"]
    terminal.progress(Progress("decode", 1, 1))
    assert "tokens" not in stream.getvalue().splitlines()[-1]


def test_bytes_have_a_unit():
    stream = io.StringIO()
    Terminal(stream).progress(Progress("load", 4_000_000_000, 4_000_000_000))
    assert "4.00G/4.00G" in stream.getvalue()


@pytest.mark.parametrize(
    ("options", "lines"),
    [({}, ["bad"]), ({"quiet": True}, []), ({"verbose": True}, ["encode: 1 s", "bad"])],
)
def test_log_lines_follow_the_options(options, lines):
    stream, log = io.StringIO(), logging.getLogger("acestep")
    with log_lines(Terminal(stream), options):
        log.info("encode: 1 s")
        log.warning("bad")
    log.error("afterwards")
    assert stream.getvalue().splitlines() == lines


OBEYED = "\x1b[31m \x07 \r \x7f \x9b2J \u202e \u2066 \ud800"


def test_what_a_terminal_obeys_is_escaped():
    assert not {*"\x1b\x07\r\x7f\x9b\u202e\u2066\ud800"} & {*printable(OBEYED)}
    assert json.loads(f'"{printable(OBEYED)}"') == OBEYED
    assert printable("夜 ✓\n\té ‏א") == "夜 ✓\n\té ‏א"


def test_lines_and_logs_are_escaped_and_logs_shortened(monkeypatch):
    # pytest-xdist cannot send a captured log with a lone surrogate.
    monkeypatch.setattr(logging.getLogger("acestep"), "propagate", False)
    screen = io.StringIO()
    with log_lines(Terminal(screen), {}):
        Terminal(screen).line(OBEYED)
        logging.getLogger("acestep").warning("%s%s", OBEYED, "x" * 10_000)
    assert not {*"\x1b\x07\r\x7f\x9b\u202e\u2066\ud800"} & {*screen.getvalue()}
    assert screen.getvalue().count("\n") == 2 and len(screen.getvalue()) < 3000
