from __future__ import annotations

import io
import sys

import pytest

from steer_env.cli.progress import Bar, show_table
from steer_env.evaluation import summarise


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer_env.cli.progress._EVERY", 0.0)
    with Bar("work", 2) as bar:
        bar.update(1, 2, "[red]half")
    err = capsys.readouterr().err
    assert "work: 1/2 after 0 s, [red]half" in err and "work: done in" in err


def test_lines_say_what_is_left_from_what_was_seen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 20.0, 40.0, 60.0])
    monkeypatch.setattr("steer_env.cli.progress.time.monotonic", lambda: next(clock))
    with Bar("work", 100) as bar:
        bar.update(50, 100)  # a resumed job: these were there before
        bar.update(60, 100, "note")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "work ...",
        "work: 50/100 after 20 s",
        "work: 60/100 80 s left, note",
        "work: done in 60.0 s",
    ]


def test_a_terminal_gets_a_bar_without_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Bar("work [red]", 2) as bar:
        bar.update(2, 2, "return 1.5")
    text = screen.getvalue()
    assert "work [red]" in text and "2/2" in text and "return 1.5" in text


def test_failure_is_not_reported_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Bar("work"):
        raise KeyboardInterrupt
    assert "done" not in capsys.readouterr().err


def test_table_in_a_terminal_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    show_table({"me": summarise([])}, "title")
    assert "┃" in screen.getvalue() and "available" in screen.getvalue()
