"""What people see of a long step."""

from __future__ import annotations

import io

import pytest

from lab.progress import PlainProgress, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_every_ten_seconds_and_none_in_between(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    bar = PlainProgress("train", 100, clock=lambda: now[0])
    now[0] = 9.0
    bar.advance(10)
    now[0] = 10.0
    bar.advance(10)
    now[0] = 15.0
    bar.advance(10)
    assert capsys.readouterr().err == "train: 20/100, 2.0/s, 40 s left\n"


def test_nothing_done_yet_says_no_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    bar = PlainProgress("train", 100, clock=lambda: now[0])
    now[0] = 20.0
    bar.advance(0)
    assert capsys.readouterr().err == "train: 0/100, 0.0/s\n"


def test_a_short_step_leaves_a_log_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("merge", 2) as advance:
        advance(2)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    with progress("merge", 4) as advance:
        advance(1)
        advance(2)
    assert "merge" in terminal.getvalue()
    assert "3/4" in terminal.getvalue()
