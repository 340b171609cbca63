"""A finished evaluation says when its numbers are about nothing."""

import pytest

from steer_env.play.evaluate import AllFailed, check_played


def row(*replies, stop="seed_end", error=""):
    return {"stop": stop, "error": error, "turns": [{"reply": reply} for reply in replies]}


def test_a_run_in_which_all_failed_ends_with_the_commonest_reason():
    failed = [row(stop="failed", error=reason) for reason in ("timeout", "connection", "connection")]
    with pytest.raises(AllFailed, match=r"all 3 dialogues failed.*commonest reason \(2\): connection"):
        check_played(failed)
    check_played([*failed, row("hello")])
    check_played([])
