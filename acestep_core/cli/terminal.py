"""Progress bars and log lines on the terminal."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from ..callbacks import TokenRate
from ..errors import printable as printable  # for the commands, too
from ..errors import shortened as shortened

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..callbacks import Progress

BYTES = 10_000  # a total of this size or more counts bytes, not steps


class Terminal:
    """One tqdm bar per stage. If the stream is not a terminal, each bar is written once, when the stage is done."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._live = stream.isatty()
        self._bar: tqdm | None = None
        self._stage = ""
        self._idle_since = time.time()
        self._rate = TokenRate()

    @property
    def live(self) -> bool:
        """True for a terminal, False for a file or pipe."""
        return self._live

    def progress(self, report: Progress) -> None:
        """Show a progress report. Pass this method as `Callbacks.progress`."""
        if self._bar is None or report.stage != self._stage:
            self.close()
            self._stage, self._bar = report.stage, self._new_bar(report)
        bar = self._bar
        if report.tokens is not None:
            bar.set_postfix_str(f"{self._rate(report.tokens):.0f} tokens/s", refresh=False)
        bar.total = report.total
        bar.update(report.step - bar.n)
        if report.step >= report.total:
            if not self._live:
                self.line(str(bar))
            self.close()

    def _new_bar(self, report: Progress) -> tqdm:
        from tqdm import tqdm

        in_bytes = report.total >= BYTES
        size = shutil.get_terminal_size()  # tqdm's own query fails on a terminal of unknown size
        bar = tqdm(
            total=report.total,
            desc=f"{report.stage:<20}",
            file=self._stream,
            delay=0 if self._live else math.inf,
            ncols=size.columns - 1 if self._live else None,
            nrows=size.lines,
            unit="B" if in_bytes else "it",
            unit_scale=in_bytes,
        )
        if report.step > 0:  # the first report comes after the first step
            bar.start_t = self._idle_since
        return bar

    def line(self, text: str) -> None:
        """Write a line, above the current bar if there is one. Control characters are escaped."""
        text = printable(text)
        if self._live and self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Close the current bar, even if the stage is unfinished."""
        if self._bar is not None:
            self._bar.close()
            self._bar, self._idle_since = None, time.time()


class _LogHandler(logging.Handler):
    def __init__(self, terminal: Terminal):
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.line(shortened(record.getMessage()))


@contextmanager
def log_lines(terminal: Terminal, options: Mapping[str, Any]) -> Iterator[None]:
    """Show the package's log on the terminal, at the level of --quiet or --verbose, and restore logging afterwards."""
    log, handler = logging.getLogger("acestep"), _LogHandler(terminal)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.ERROR if options.get("quiet") else logging.INFO if options.get("verbose") else logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
