"""Tells people how far a long step is; reads and writes no file.

A bar on standard error where that is a terminal, else a plain line every ten seconds, so that logs stay readable.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function to be called with the number of items done since its last call."""
    if sys.stderr.isatty():
        with _bar(description, total) as advance:
            yield advance
    else:
        yield PlainProgress(description, total).advance


@contextmanager
def _bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(description, total=total, rate="")

        def advance(count: int) -> None:
            bar.update(task, advance=count)
            bar.update(task, rate=_per_second(bar.tasks[0].completed, bar.tasks[0].elapsed or 0.0))

        yield advance


class PlainProgress:
    """Lines such as `train: 120/600, 4.1/s, 117 s left` on standard error."""

    def __init__(self, description: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.description, self.total, self.clock = description, total, clock
        self.done = 0
        self.started = self.last_line = clock()

    def advance(self, count: int) -> None:
        self.done += count
        now = self.clock()
        if now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        elapsed = now - self.started
        left = f", {elapsed / self.done * (self.total - self.done):.0f} s left" if self.done else ""
        rate = _per_second(self.done, elapsed)
        print(f"{self.description}: {self.done}/{self.total}, {rate}{left}", file=sys.stderr, flush=True)


def _per_second(count: float, seconds: float) -> str:
    return f"{count / seconds:.1f}/s" if seconds else ""
