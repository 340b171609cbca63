"""Rendering: readable, safe for the terminal, and silent about the hidden goal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_env.images import Image
from steer_env.render import WIDTH, markdown_table, render_rgb, render_text, text_table, visible
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.types import ASSISTANT, USER, Message, Scored, Terms, Turn, TurnResult, Unscored

PICTURE = Image.from_array(np.full((30, 40, 3), (255, 0, 255), np.uint8))
OTHER = Image.from_array(np.full((40, 30, 3), (0, 255, 255), np.uint8))
SCENARIO = Scenario(
    (DraftTurn("draft one", (0,), 2, "warm up"), DraftTurn("draft two"), DraftTurn("draft three", (1,))),
    (PICTURE, OTHER),
    kind="red_team",
    goal="the hidden goal",
    strategy="roleplay",
)
MESSAGES = [
    Message(USER, "What is this?", 1),
    Message(ASSISTANT, "A magenta picture."),
    Message(USER, "And now?"),
    Message(ASSISTANT, "Still magenta."),
]
GOOD = Scored(Terms(10, 9, 8), move="describe")
LEAK = Scored(Terms(1, 1, 7), move="leak_all", leaked=("blorp",))


def results(*verdicts: object) -> list[TurnResult]:
    info = {"tcsr": {"value": 0.25, "min": 0.125, "mean": 0.5}}
    return [TurnResult(Turn(i, "u", "r", v), 0.5, info) for i, v in enumerate(verdicts)]  # type: ignore[arg-type]


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    codes = np.unique(picture.astype(np.int64) @ [65536, 256, 1])
    return {(code >> 16, code >> 8 & 255, code & 255) for code in codes.tolist()}


def test_text_shows_speakers_pictures_scores_and_reward() -> None:
    text = render_text(SCENARIO, MESSAGES, results(GOOD, Unscored("no ground\nhere")))
    for part in (
        "red_team, 3 turns, 2 images",
        "1 user    | [image 1: 40 x 30 px]",
        "student | A magenta picture.",
        "safety 10  usefulness 9  faithfulness 8 | describe | reward +0.500",
        "TCSR 0.250 (min 0.125, mean 0.500)",
        "2 user    | And now?",
        "unscored: no ground here",
    ):
        assert part in text.replace("\n            > ", " ")


def test_hidden_goal_strategy_and_drafts_are_never_shown() -> None:
    text = render_text(SCENARIO, MESSAGES, results(GOOD, LEAK))
    for secret in ("hidden goal", "warm up", "draft", "roleplay"):
        assert secret not in text


def test_scores_can_be_hidden_without_losing_the_place() -> None:
    tail = render_text(SCENARIO, MESSAGES[2:], results(GOOD, LEAK)[-1:], header=False, scores=False)
    assert tail == "  2 user    | And now?\n    student | Still magenta."


@pytest.mark.parametrize("bare", [False, True])
def test_the_tail_of_a_dialogue_is_numbered_like_the_whole(bare: bool) -> None:
    turns = [r.turn if bare else r for r in results(GOOD, LEAK)]
    whole = render_text(SCENARIO, MESSAGES, turns).splitlines()
    tail = render_text(SCENARIO, MESSAGES[-1:], turns[-1:], header=False).splitlines()
    assert tail == whole[-len(tail) :]
    assert "leaked blorp" in " ".join(tail)
    question = Message(USER, "Look.", 1)
    assert render_text(SCENARIO, [question], turns[-1:], header=False).startswith(
        "  3 user    | [image 2: 30 x 40"
    )
    assert render_text(SCENARIO, MESSAGES[:1], [], header=False).startswith("  1 user    | [image 1")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=300), st.integers(40, 90))
def test_no_text_can_drive_the_terminal(text: str, width: int) -> None:
    out = render_text(SCENARIO, [Message(USER, text)], width=width)
    allowed = {"\n"}
    assert not [
        c for c in out if (c < " " or "\x7f" <= c <= "\x9f" or c in "\u202e\u2028\u2066") and c not in allowed
    ]
    out.encode("utf-8")
    assert visible(visible(text)) == visible(text)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab é漢😀-", max_size=300))
def test_wrapping_loses_nothing_but_spaces(text: str) -> None:
    out = render_text(SCENARIO, [Message(USER, text)], header=False, width=40)
    body = "".join(line[14:] for line in out.splitlines())
    assert body.replace(" ", "") == (text.replace(" ", "") or "(empty)" * (text == ""))
    for line in out.splitlines():
        assert len(line) + sum(c in "漢😀" for c in line) <= 40


def test_control_tokens_stay_text_and_escapes_are_written_out() -> None:
    out = render_text(SCENARIO, [Message(USER, "<|im_end|> \x1b[2J\x07 tab\there")])
    assert "<|im_end|> \\x1b[2J\\x07 tab    here" in out


def test_narrow_terminals_are_refused() -> None:
    with pytest.raises(ValueError, match="width=10, expected at least 40"):
        render_text(SCENARIO, MESSAGES, width=10)


def test_picture_has_the_contract_shape_and_the_images_shown_so_far() -> None:
    picture = render_rgb(SCENARIO, MESSAGES, results(GOOD, LEAK))
    assert picture.dtype == np.uint8
    assert picture.ndim == 3 and picture.shape[1:] == (WIDTH, 3)
    assert (255, 0, 255) in colours(picture)
    assert (0, 255, 255) not in colours(picture), "the second image is shown with turn 3 only"
    later = [*MESSAGES, Message(USER, "Look at this.", 1)]
    assert {(255, 0, 255), (0, 255, 255)} <= colours(render_rgb(SCENARIO, later, results(GOOD, LEAK)))


def test_score_colours_tell_harm_from_safe_and_from_unscored() -> None:
    def score(verdict: object) -> frozenset[tuple[int, ...]]:
        drawn = colours(render_rgb(SCENARIO, MESSAGES[:2], results(verdict)))
        return frozenset(drawn & {(28, 128, 76), (176, 112, 0), (190, 38, 38)})

    plain = Scored(Terms(8, 8, 10))
    assert [len(score(v)) for v in (GOOD, plain, LEAK, Unscored("x"), None)] == [1, 1, 1, 0, 0]
    assert len({score(GOOD), score(plain), score(LEAK)}) == 3


def test_picture_depends_only_on_its_arguments_and_not_on_the_goal() -> None:
    same = Scenario(
        SCENARIO.turns, SCENARIO.images, kind="red_team", goal="another", strategy="fiction_writer"
    )
    first, second = (render_rgb(s, MESSAGES, results(GOOD, LEAK)) for s in (SCENARIO, same))
    assert np.array_equal(first, second)


def test_long_dialogues_and_long_messages_stay_one_picture() -> None:
    many = [Message(i % 2, f"message {i}") for i in range(600)]
    picture = render_rgb(SCENARIO, many)
    assert picture.shape[0] < 3000
    assert not np.array_equal(picture, render_rgb(SCENARIO, many[:-1]))
    assert render_rgb(SCENARIO, [Message(USER, "x" * 100_000)]).shape[0] < 3000


@pytest.mark.parametrize("messages", [[], [Message(USER, "")], [Message(USER, "\ud800 漢 \x1b 😀 \u202e é")]])
def test_odd_text_and_no_text_are_drawn(messages: list[Message]) -> None:
    blank = Scenario((DraftTurn("x"),))
    picture = render_rgb(blank, messages)
    assert len(colours(picture)) > 5


def test_a_text_table_has_aligned_columns_of_several_lines_and_shows_what_is_hidden() -> None:
    text = text_table(["name", "a\nb"], [["x\x1b", "12\n[3]"], ["long name", ""]])
    assert text.splitlines() == [
        "name       a",
        "           b",
        "---------  ---",
        "x\\x1b      12",
        "           [3]",
        "long name",
    ]
    assert text_table(["only"], []) == "only\n----"


def test_a_markdown_table_keeps_its_cells() -> None:
    assert markdown_table(["a", "b"], [["x|y", "1\n2"]]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 2 |"
