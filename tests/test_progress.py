"""Progress on standard error, in a log and on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from groma_ros.progress import ProgressReporter, shown


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_at_most_ten_plain_lines_and_the_items_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(shown(range(25), 25, "scene")) == list(range(25))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"scene {number} of 25" for number in (*range(2, 25, 2), 25)]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(shown("abc", 3, "letter")) == ["a", "b", "c"]
    assert "letter" in terminal.getvalue() and "3/3" in terminal.getvalue()


def test_items_done_before_count(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that is resumed."""
    assert list(shown(range(15, 20), 20, "step", 15)) == list(range(15, 20))
    assert capsys.readouterr().err.splitlines() == ["step 16 of 20", "step 18 of 20", "step 20 of 20"]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    items = shown(range(15, 20), 20, "step", 15)
    assert next(items) == 15
    items.close()  # type: ignore[attr-defined]
    assert "15/20" in terminal.getvalue()


def test_results_in_a_file_stay_there_beside_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for item in shown("ab", 2, "letter"):
        print("result", item)
    assert capsys.readouterr().out == "result a\nresult b\n" and "result" not in terminal.getvalue()


def test_a_reporter_prints_every_tenth_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    report = ProgressReporter("graph")
    for done in range(101):
        report(done, 100, "building")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "graph: building 0 of 100" and lines[-1] == "graph: building 100 of 100"
    assert len(lines) == 11


def test_a_reporter_draws_one_bar_on_a_terminal_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    report = ProgressReporter("graph")
    for done in range(3):
        report(done, 2, "building")
    report(0, 5, "testing")
    report(5, 5, "testing")
    assert "2/2" in terminal.getvalue() and "graph: testing" in terminal.getvalue()
    assert "5/5" in terminal.getvalue()
