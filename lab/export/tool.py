"""Runs a program of others and shows how far it is: reads its output, writes it to a log file.

llama.cpp's tools and make say it as `12/300` or `12%`; where they fail, their last meaningful line becomes the error.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from lab.errors import LabError
from lab.progress import progress

_DONE_OF_TOTAL = re.compile(r"\[\s*(\d+)\s*/\s*(\d+)\s*\]")
_PERCENT = re.compile(r"\b(\d{1,3})%")
_NOISE = re.compile(r"^(g?make(\[\d+\])?: |\s*\^|~|$)|: build = |main: quantize time")


def run_tool(command: Sequence[str | Path], log_path: Path, description: str) -> str:
    """Run to the end and return what it said on both outputs; raises LabError with its last meaningful line."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with (
        log_path.open("wb") as log,
        subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A group, not a session: Linux' autogroups share time between sessions whatever their niceness.
            process_group=0,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            lines = _follow(process.stdout, log, description)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # its children too: a compiler would go on without its make
            raise
    if process.returncode != 0:
        raise LabError(
            f"failed with exit code {process.returncode}: {last_meaningful(lines)}",
            where=description,
            mend=f"the whole output is in {log_path}",
        )
    return "\n".join(lines)


def _follow(output: IO[bytes], log: IO[bytes], description: str) -> list[str]:
    lines: list[str] = []
    with ExitStack() as stack:
        advance = None
        done = 0
        for line in _lines(output, log):
            lines.append(line)
            found = position(line)
            if found is None:
                continue
            if advance is None:
                advance = stack.enter_context(progress(description, found[1]))
            if found[0] > done:
                advance(found[0] - done)
                done = found[0]
    return lines


def _lines(output: IO[bytes], log: IO[bytes]) -> Iterator[str]:
    """Lines as they come; a carriage return ends one too, since progress bars rewrite theirs."""
    rest = b""
    while block := os.read(output.fileno(), 65536):
        log.write(block)
        log.flush()
        *whole, rest = re.split(rb"[\r\n]+", rest + block)
        yield from (line.decode(errors="replace") for line in whole)
    yield rest.decode(errors="replace")


def position(line: str) -> tuple[int, int] | None:
    """Done and total in a line such as `[12/300] Building` or `Writing:  45%|####`."""
    if found := _DONE_OF_TOTAL.search(line):
        return int(found[1]), int(found[2])
    if found := _PERCENT.search(line):
        return int(found[1]), 100
    return None


def last_meaningful(lines: Sequence[str]) -> str:
    """The last line that says an error, else the last one that says anything."""
    said = [line.strip() for line in lines if not _NOISE.search(line)]
    errors = [line for line in said if re.search(r"error|fatal|not found|unsupported", line, re.IGNORECASE)]
    return (errors or said or ["it said nothing"])[-1]
