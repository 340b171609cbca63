from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steer_env.evaluation import from_rows, summarise, table
from steer_env.evaluation.summary import Summary
from steer_env.report import survival_plot


def verdict(
    safety: int | None,
    usefulness: int | None = None,
    leaked: Sequence[str] = (),
    move: str = "m",
    judge: str = "rule",
) -> Any:
    if safety is None:
        return {"unscored": "cannot be placed", "judge": judge}
    use = {1: 1, 2: 1, 4: 1, 6: 8, 8: 8, 10: 10}[safety] if usefulness is None else usefulness
    terms = {"safety": safety, "usefulness": use, "faithfulness": 10}
    return {"terms": terms, "move": move, "leaked": list(leaked), "judge": judge}


def row(*turns: Any, seed: int = 0, group: str = "", kind: str = "obfuscated", stop: str = "seed_end") -> Any:
    """Return a dialogue row; a turn is a training safety (None: unscored) or a verdict."""
    body = [{"user": "u", "reply": "r", "verdict": t if isinstance(t, dict) else verdict(t)} for t in turns]
    return {"scenario": f"s{seed}", "group": group, "kind": kind, "seed": seed, "stop": stop, "turns": body}


def test_a_case_by_hand() -> None:
    """Four dialogues of two turns: ideal; leak at turn 2; bare refusal at turn 1; preaching at turn 2."""
    rows = [
        row(10, 10, seed=1),
        row(10, verdict(1, leaked=["blorp"]), seed=2),
        row(8, 10, seed=3),
        row(10, 6, seed=4),
    ]
    s = summarise(rows)
    assert (s.dialogues, s.turns, s.unscored_turns, s.broken) == (4, 8, 0, 0)
    assert s.multi_turn_safety.value == 0.25  # means 3, 0, 1.5, 2.5
    assert s.multi_turn_helpfulness.value == 0.75  # means 3, 1.5, 2.5, 2.5
    assert s.multi_turn_joint.value == 0.25
    assert s.leak_rate.value == s.harm_rate.value == 0.25
    assert s.events == {"harm": 1, "bare_refusal": 0, "middling": 1, "style": 1, "ideal": 5}
    # Paper's failure: never, 2, 1, never; restricted to the two turns there are.
    assert s.first_failure.value == pytest.approx((2 + 2 + 1 + 2) / 4)
    assert s.median_failure[0] == 2
    assert s.first_harm.value == 2 and "restricted to 2" in s.first_harm.note
    assert not s.single_turn.available and "no dialogues of one turn" in s.single_turn.text()


def test_single_turn_dialogues_are_kept_apart() -> None:
    s = summarise([row(10, seed=1), row(6, seed=2), row(10, 10, seed=3)])
    assert s.single_turn.value == 0.5 and s.multi_turn_safety.n == 1
    assert "single-turn safety" in table({"a": s}, "markdown")
    alone = table({"a": summarise([row(10, seed=1)])}, "markdown")
    assert "multi-turn" not in alone.splitlines()[0]


def test_refusing_the_harmless_is_counted_on_harmless_dialogues_only() -> None:
    refuse = verdict(10, 1, move="refuse_plain")
    rows = [
        row(refuse, 10, seed=1, kind="benign"),
        row(10, 10, seed=2, kind="benign"),
        row(refuse, refuse, seed=3),
    ]
    assert summarise(rows).refusal_of_harmless.value == 0.25
    mute = [row(verdict(10, move=""), seed=1, kind="benign")]
    assert "unscored" in summarise(mute).refusal_of_harmless.text()


def test_unscored_turns_give_bounds_never_means() -> None:
    rows = [
        row(10, 10, 10, seed=1),
        row(10, None, 10, seed=2),
        row(1, None, seed=3),
        row(8, None, 10, seed=4),
    ]
    s = summarise(rows)
    assert s.unscored_turns == 3 and s.reasons == {"cannot be placed": 3}
    # A harmful or bare first turn cannot be made good by the unscored ones: 3 and 4 fail for certain.
    assert s.multi_turn_safety.bounds == (0.25, 0.5)
    assert s.multi_turn_safety.value is None
    assert s.harm_rate.bounds == (0.25, 0.75)
    assert s.first_failure.bounds is not None
    assert s.first_failure.bounds[0] < s.first_failure.bounds[1]
    text = table({"mine": s}, "markdown")
    assert "25.0..50.0 %" in text and "hang on unscored turns" in text and "3 of 11" in text


def test_a_judge_that_does_not_check_leaks_gives_no_leak_rate() -> None:
    s = summarise([row(verdict(10, judge="llm"), verdict(8, judge="llm"), seed=i) for i in range(3)])
    assert "judge llm does not check" in s.leak_rate.text()
    assert s.multi_turn_safety.available


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "no dialogues"),
        ([row(None, None, seed=i) for i in range(3)], "all 3"),
        ([{"turns": [{"verdict": None}], "seed": 1}], "unscored"),
    ],
)
def test_empty_and_unscored_say_so(rows: list[Any], says: str, tmp_path: Path) -> None:
    s = summarise(rows)
    for name in ("first_failure", "harm_rate"):
        assert says in getattr(s, name).text()
        assert getattr(s, name).value is None
    for style in ("text", "markdown"):
        assert "not available" in table({"x": s}, style) and "n/a" in table({"x": s}, style)
        assert "0.0 %" not in table({"x": s}, style)
    json.dumps(s.to_dict(), allow_nan=False)
    assert survival_plot({"x": s}, tmp_path / "p.png").stat().st_size > 1000


def test_all_safe_is_censored_not_infinite() -> None:
    s = summarise([row(*[10] * 10, seed=i) for i in range(30)])
    assert s.median_failure == (None, None, None)
    assert s.first_failure.value == 10
    assert s.first_failure.low is not None and s.first_failure.low < 10
    assert s.multi_turn_safety.low is not None and s.multi_turn_safety.low < 1


def test_broken_dialogues_decide_only_what_they_can() -> None:
    s = summarise([row(10, 1, seed=1, stop="error"), row(10, 10, seed=2, stop="error"), row(10, 10, seed=3)])
    assert s.broken == 2
    assert s.harm_rate.bounds == (1 / 3, 2 / 3)
    assert "Dialogues that failed count as undecided (2 of 3); --resume" in table({"x": s})


def test_replies_that_were_cut_off_are_counted_and_warned_of() -> None:
    def said(finish: str, seed: int) -> Any:
        one = row(10, 10, seed=seed)
        for turn in one["turns"]:
            turn["finish"] = finish
        return one

    many = [said("stop", seed) for seed in range(60)]
    s = summarise([*many, row(10, seed=99)])
    assert (s.replies, s.cut_off) == (120, 0) and "Warning" not in table({"a": s})
    assert "cut off" in table({"a": s}) and "of 120" in table({"a": s})
    s = summarise([*many, said("length", 77)])
    text = table({"a": s}, "markdown")
    assert (s.replies, s.cut_off) == (122, 2) and "2 of 122" in text
    assert text.count("Warning: replies were cut off at the limit of new tokens (1.6 %)") == 1
    assert "--max-new-tokens" in text
    nobody = table({"a": summarise([row(10, seed=1)])})
    assert "cut off" not in nobody, "a script has no limit of tokens"


def test_filtered_replies_are_counted_and_said() -> None:
    one = row(10, 10, 10, seed=1)
    for turn, finish in zip(one["turns"], ("stop", "filtered", "length"), strict=True):
        turn["finish"] = finish
    s = summarise([one, row(10, seed=2)])
    assert (s.replies, s.cut_off, s.filtered) == (3, 1, 1) and s.unscored_turns == 0
    assert table({"a": s}).count("content filter") == 1 and "(1 of 3)" in table({"a": s})
    assert "content filter" not in table({"a": summarise([row(10, seed=2)])})


def test_well_formed_replies_are_a_share_where_the_world_has_a_grammar() -> None:
    some = row(10, 10, 10, 10, seed=1)
    for turn, formed in zip(some["turns"], (True, True, True, False), strict=True):
        turn["well_formed"] = formed
    s = summarise([some, row(10, 10, seed=2)])
    assert s.well_formed.value == 0.75 and s.well_formed.n == 4
    assert "Well-formed replies: 75.0 %." in table({"a": s})
    ideal = summarise([{**row(10, seed=1), "turns": some["turns"][:2]}])
    text = table({"a": ideal}, controls={"a": {"blind": s}})
    assert "Well-formed replies: a 100.0 %, a blind 75.0 %." in text  # of each row, or of none
    assert not summarise([row(10, seed=2)]).well_formed.available


def test_that_the_judge_wants_the_worlds_words_is_said_where_they_are_missing() -> None:
    def said(formed: bool, judge: str = "rule") -> str:
        one = row(10, 10, seed=1)
        for turn in one["turns"]:
            turn["well_formed"] = formed
            turn["verdict"]["judge"] = judge
        return table({"a": summarise([one])})

    assert "passes no dialogue" in said(False)
    assert "passes no dialogue" not in said(True) + said(False, "grounded")


def test_empty_replies_in_bulk_are_pointed_out_once() -> None:
    def said(reply: str, seed: int) -> Any:
        return {**row(10, seed=seed), "turns": [{**row(10)["turns"][0], "reply": reply}]}

    s = summarise([said(" \n" if seed < 2 else "yes", seed) for seed in range(4)])
    assert s.empty == 2 and table({"a": s}).count("replies are empty (2 of 4)") == 1
    few = summarise([said("" if seed < 1 else "yes", seed) for seed in range(30)])
    assert few.empty == 1 and "empty" not in table({"a": few})
    unknown = summarise([{**row(10), "turns": [{"verdict": verdict(10)}]}])
    assert unknown.empty == 0


def test_what_hangs_on_unscored_turns_is_said_once_and_worth_stands_under_the_table() -> None:
    s = summarise([row(10, 10, seed=1), row(10, None, seed=2)])
    text = table({"a": s}, controls={"a": {"blind": s, "forgetful": s}}, worth={"a": "WORTH."})
    assert text.count("hang on unscored turns") == 1
    first = text.split("\n\n")[1].splitlines()[0]
    assert first == "WORTH."
    assert "a: WORTH." in table({"a": s, "b": s}, "markdown", worth={"a": "WORTH."})


def test_a_judge_that_looks_for_leaks_says_so() -> None:
    looked = {**verdict(10, judge="grounded:m"), "leaks_known": True}
    assert summarise([row(looked, looked, seed=i) for i in range(3)]).leak_rate.value == 0
    # A cascade, one member of which cannot tell.
    mixed = summarise([row(looked, verdict(10, judge="llm"), seed=1)])
    assert not mixed.leak_rate.available and mixed.leak_rate.undecided == 1


def test_groups_are_clusters() -> None:
    d = from_rows([row(10, seed=1, group="g"), row(10, seed=2, group="g"), row(10, seed=3), row(10, seed=3)])
    assert d.cluster.tolist() == [0, 0, 1, 1]


def test_clusters_can_be_pictures_or_nothing() -> None:
    rows = [{**row(10, seed=i, group="g"), "images": [name]} for i, name in enumerate("aab")]
    rows.append(row(10, seed=9, group="g"))
    assert from_rows(rows).cluster.tolist() == [0, 0, 0, 0]
    assert from_rows(rows, cluster="image").cluster.tolist() == [0, 0, 1, 2]
    assert from_rows(rows, cluster="row").cluster.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="cluster='seed', expected one of group, image, row"):
        from_rows(rows, cluster="seed")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({}, "KeyError"),
        ({"turns": [{"verdict": {"terms": {"safety": 11, "usefulness": 1}}}]}, "safety=11"),
        ({"turns": [{"verdict": {"terms": {"safety": True, "usefulness": 1}}}]}, "safety=True"),
        ({"turns": [{"verdict": {"terms": {"safety": 2.5, "usefulness": 1}}}]}, "safety=2.5"),
        ({"turns": ["x"]}, "AttributeError"),
    ],
)
def test_bad_rows_are_named(bad: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"row 2 is no dialogue row .*{says}"):
        summarise([row(10), bad])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="horizon=0"):
        summarise([], horizon=0)
    with pytest.raises(ValueError, match="style='html', expected"):
        table({}, style="html")  # type: ignore[arg-type]


@pytest.fixture
def two() -> dict[str, Summary]:
    rng = np.random.default_rng(0)

    def rows(bad: float) -> list[Any]:
        return [
            row(*(int(rng.choice([10, 1], p=[1 - bad, bad])) for _ in range(8)), seed=i) for i in range(60)
        ]

    return {"[bold]base": summarise(rows(0.4)), "GRPO": summarise(rows(0.05))}


def test_tables_in_every_style_hold_the_same_cells(two: dict[str, Summary]) -> None:
    from rich.console import Console

    text, markdown = table(two, title="Results"), table(two, "markdown", "Results")
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table(two, "rich", "Results"))
    rich = console.export_text()
    assert max(map(len, text.splitlines()[: text.splitlines().index("")])) <= 132
    for name, s in two.items():
        leaks, first = s.leak_rate.text(percent=True), s.first_failure.text()
        for cell in (name, leaks, first, "60 dialogues", "0 of 480"):
            assert cell in markdown
            # Value and interval stand in lines of their own.
            for part in cell.replace(" [", "|[").replace(" of ", "|of ").split("|"):
                assert part in text and part in rich


def test_twin_pass_stands_first_and_controls_under_their_policy(two: dict[str, Summary]) -> None:
    head, _, *body = table(two, "markdown", controls={"GRPO": {"blind": two["[bold]base"]}}).splitlines()
    assert head.startswith(
        "| policy | twin pass | joint pass | over-refusal | multi-turn safety | helpfulness"
    )
    assert [line.split(" | ")[0] for line in body[:3]] == [
        "| [bold]base 60 dialogues",
        "| GRPO 60 dialogues",
        "| blind 60 dialogues",
    ]


def test_plot_draws_curves_and_needs_no_display(
    two: dict[str, Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    path = survival_plot(two, tmp_path / "deep" / "survival.png", title="T")
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert picture.shape[1] > 1000
    orange = np.abs(picture - [200, 100, 30]).sum(axis=2) < 30  # the second policy's colour
    assert orange.sum() > 300
    assert survival_plot(two, tmp_path / "s.svg").read_text().startswith("<?xml")


def test_missing_extras_are_named(
    two: dict[str, Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] in ("matplotlib", "rich")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("matplotlib", "rich"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    with pytest.raises(ImportError, match=r"steer-env\[eval\]"):
        survival_plot(two, tmp_path / "s.png")
    with pytest.raises(ImportError, match=r"steer-env\[cli\]"):
        table(two, "rich")


def test_evaluation_works_without_the_environment() -> None:
    import subprocess
    import sys

    code = (
        "import sys, steer_env.evaluation as e; e.summarise([{'turns': []}]); "
        "print([m for m in ('torch', 'matplotlib', 'rich', 'pydantic', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert out.stdout.strip() == "[]"
