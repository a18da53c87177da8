"""What the command shows on the terminal: one progress bar per stage, and lines between them."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TextIO

from ..callbacks import TokenRate

if TYPE_CHECKING:
    from ..callbacks import Progress

WIDTH = 30
SPEED = len(" 10000 tokens/s")  # its room, so that nothing is left of a longer one


class Terminal:
    """A bar is redrawn in place on a terminal; elsewhere only its finished state is written."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._live = stream.isatty()
        self._stage = ""
        self._open = False  # a bar stands on the current line
        self._started = time.monotonic()
        self._rate = TokenRate()

    def progress(self, report: Progress) -> None:
        """A progress hook."""
        if report.stage != self._stage:
            self.close()
            self._stage = report.stage
        if report.step == 0:
            self._started = time.monotonic()
        speed = "" if report.tokens is None else f" {self._rate(report.tokens):.0f} tokens/s"
        done = report.step >= report.total
        if self._live or done:
            self._draw(report, done, speed)
        if done:
            self._stage, self._started = "", time.monotonic()

    def _draw(self, report: Progress, done: bool, speed: str) -> None:
        part = report.step / max(report.total, 1)
        bar = "█" * round(part * WIDTH)
        count = f"{report.step}/{report.total}" if report.total < 10_000 else f"{part:.0%}"  # more are bytes
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        text = f"{report.stage:<20} {bar:·<{WIDTH}} {count:>9} {minutes}:{seconds:02}{speed:<{SPEED}}"
        self._write(f"\r{text}" if self._live else text.rstrip())
        self._write("\n" if done else "")
        self._open = not done

    def line(self, text: str) -> None:
        """A line of its own, below the bar if there is one."""
        self.close()
        self._write(text + "\n")

    def close(self) -> None:
        """Ends the line of an unfinished bar."""
        if self._open:
            self._write("\n")
        self._open = False

    def log_handler(self) -> logging.Handler:
        """Log records as lines."""
        return _LogHandler(self)

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "ascii"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))  # consoles without block characters
        self._stream.flush()


class _LogHandler(logging.Handler):
    def __init__(self, terminal: Terminal):
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.line(record.getMessage())
