"""Progress goes to standard error: bars on a terminal, lines elsewhere, results never among them."""

import io
import sys

import pytest

from yolojax.cli import progress
from yolojax.cli.progress import LineReporter, RichReporter, make_reporter
from yolojax.progress import Quiet, Reporter


class Terminal(io.StringIO):
    """A standard error that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_the_place_decides(monkeypatch):
    assert isinstance(make_reporter(), LineReporter)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(make_reporter(), RichReporter)
    assert all(isinstance(reporter, Reporter) for reporter in (LineReporter(), RichReporter(), Quiet()))


def test_lines_tell_how_long_it_will_take(clock, capsys):
    with LineReporter().task("training", 100) as advance:
        clock.now += 60  # compilation
        advance(1, "loss 9")
        assert capsys.readouterr().err == ""  # one step tells nothing about the next
        clock.now += 20
        advance(21, "loss 7")
        clock.now += 10
        advance(31, "loss 6")  # too soon for another line
        # 20 in 20 seconds since the first: 79 more take 79 seconds.
        assert capsys.readouterr().err == "training: 21 of 100, about 1:19 left; loss 7\n"
        clock.now += 70
        advance(100)
    ended = capsys.readouterr()
    assert ended.err == "training: 100 of 100, in 2:40\n" and ended.out == ""


def test_short_work_leaves_no_line(clock, capsys):
    with LineReporter().task("reading", 3) as advance:
        clock.now += 1
        advance(3)
    assert capsys.readouterr().err == ""


def test_bars(clock, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    reporter = RichReporter()
    with reporter.task("training", 40) as advance:
        print("a result")  # standard output is no terminal here: it must not be drawn into the bars
        advance(7, "loss [1.25]")
        reporter.say("a remark with [brackets]")
        with reporter.task("evaluating", 5) as inner:
            inner(5)
        clock.now += 3
        advance(40, "loss [0.50]")
    with reporter.task("short", 2) as advance:
        advance(2)
    shown = terminal.getvalue()
    assert "a remark with [brackets]" in shown and "40/40" in shown and "loss [0.50]" in shown
    last_frame = shown[shown.rindex("training") :]
    assert "evaluating" not in last_frame and "short" not in shown[shown.rindex("40/40") :].splitlines()[-1]
    assert capsys.readouterr().out == "a result\n"
