from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from steer_env.cli.watch import Watch, bars, curves
from steer_env.evaluation.measures import measure
from steer_env.play.evaluate import load_rows


def test_bars() -> None:
    assert bars([0, 0.25, 0.5, 1, None, 1.2]) == " ▂▄█·█"


def test_a_run_is_followed_to_its_end(cli) -> None:
    """`--watch` draws on stderr; where nothing can be known it says so and does not guess."""
    code, out, err = cli("evaluate", "comply", "--episodes", 24, "--watch", "--out", "r")
    assert code == 0, err
    assert "24 of 24 dialogues" in err and "harm so far" in err and "policy" in err
    assert len(load_rows("r")) == 24 and "report:" in out


def test_drawing_shows_what_is_in_the_file_and_a_torn_line_does_not_stop_it(
    make_rows, tmp_path: Path
) -> None:
    path, screen = tmp_path / "d.jsonl", io.StringIO()
    lines = [json.dumps(row) for row in make_rows]
    path.write_text("\n".join(lines) + '\n{"torn')
    with Watch("[bold]x", path, Console(file=screen, width=200)) as watch:
        watch.update(2, 2)
    shown = screen.getvalue()
    assert "[bold]x: 2 of 2 dialogues" in shown and "50.0 %" in shown
    found = dict(zip(("harm", "failure"), curves(measure(make_rows)), strict=False))
    assert found["harm"].startswith("harm so far          ▄") and found["harm"].endswith("last 50%")


def test_nothing_yet(tmp_path: Path) -> None:
    screen = io.StringIO()
    with Watch("x", tmp_path / "none.jsonl", Console(file=screen, width=80)) as watch:
        watch.update(0, 5)
    assert "0 of 5" in screen.getvalue()
