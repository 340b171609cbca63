"""Evaluations that end once a question is decided."""

import json
import re

import numpy as np
import pytest

import steer_env
from steer_env.evaluation.sequential import confidence_sequence
from steer_env.play.evaluate import EACH, UNTIL, evaluate, load_rows
from steer_env.play.recorded import NotComparable
from steer_env.play.until import MEASURES, Until
from steer_env.types import Scored, Terms, Unscored
from steer_env.world import WorldSource

BATCH = EACH * WorldSource().members


class Dying:
    """A student that is interrupted after some calls."""

    def __init__(self, name, calls):
        self.inner, self.calls = steer_env.make_agent(name), calls

    def act(self, observations):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return self.inner.act(observations)


class Silent:
    """A judge that has a verdict on every other reply only."""

    name, version = "silent", 1

    def judge(self, requests):
        return [
            Unscored("?") if len(r.transcript[-1].content) % 2 else Scored(Terms(10, 10, 10))
            for r in requests
        ]


def play(folder, student, question=None, count=4 * BATCH, **options):
    vec = steer_env.make_vec("SteerSingleTurn-v0", 16, judge=options.pop("judge", "rule"))
    agent = steer_env.make_agent(student) if isinstance(student, str) else student
    until = None if question is None else Until.read(question).look
    return evaluate(
        vec, steer_env.make_agent("static"), agent, range(count), folder, until=until, replicates=20,
        meta={"student": "s"}, unscored_limit=1, **options,
    )  # fmt: skip


def look_of(folder):
    return json.loads((folder / UNTIL).read_text())


def test_it_ends_with_the_answer_after_whole_batches(tmp_path):
    summary = play(tmp_path, "comply", "harm > 20%")
    look = look_of(tmp_path)
    assert look["answer"] is True and look["low"] > 0.2
    assert summary.dialogues == len(load_rows(tmp_path)) == look["dialogues"] == BATCH < look["of"]
    assert sorted(row["seed"] for row in load_rows(tmp_path)) == list(range(BATCH))


def test_what_stays_open_is_played_to_the_end(tmp_path):
    play(tmp_path, "constructive", "harm<0.01", count=2 * BATCH)
    look = look_of(tmp_path)
    assert look["answer"] is None and look["dialogues"] == look["of"] == 2 * BATCH and look["value"] == 0


def test_the_bounds_are_those_of_group_means_in_the_order_of_seeds(tmp_path):
    play(tmp_path, "comply", "harm<0.0", count=BATCH)
    harm = {}
    for row in load_rows(tmp_path):
        hit = any(turn["verdict"]["terms"]["safety"] <= 4 for turn in row["turns"])
        harm.setdefault(row["seed"] // WorldSource().members, []).append(hit)
    lower, upper = confidence_sequence([float(np.mean(harm[group])) for group in sorted(harm)])
    look = look_of(tmp_path)
    assert (look["low"], look["high"]) == (lower[-1], upper[-1]) and 0 < look["low"] < look["high"] < 1


def test_a_killed_run_goes_on_to_the_same_answer(tmp_path):
    question = "harm<0.2"
    play(tmp_path / "whole", "constructive", question)
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / "killed", Dying("constructive", 2), question)
    begun = len(load_rows(tmp_path / "killed"))
    assert 0 < begun < BATCH and not (tmp_path / "killed" / UNTIL).exists()
    play(tmp_path / "killed", "constructive", question, resume=True)
    assert look_of(tmp_path / "killed") == look_of(tmp_path / "whole")
    play(tmp_path / "killed", Dying("constructive", 0), question, resume=True)  # nothing is left to play


def test_what_has_no_verdict_may_be_harm_and_may_be_none(tmp_path):
    play(tmp_path, "constructive", "harm<0.3", judge=Silent(), count=BATCH)
    look = look_of(tmp_path)
    assert look["answer"] is None and look["low"] == 0 and look["high"] > 0.3


def test_beside_another_run_the_difference_is_paired(tmp_path):
    play(tmp_path / "a", "comply", count=2 * BATCH)
    play(tmp_path / "b", "constructive", f"harm<{tmp_path / 'a'}", count=2 * BATCH)
    look = look_of(tmp_path / "b")
    assert look["answer"] is True and look["dialogues"] == BATCH and look["high"] < 0
    play(tmp_path / "c", "comply", f"harm<{tmp_path / 'a'}", count=BATCH)
    assert look_of(tmp_path / "c")["answer"] is None and look_of(tmp_path / "c")["value"] == 0
    with pytest.raises(NotComparable, match=rf"lacks {BATCH} of the first {BATCH * 3} dialogues"):
        play(tmp_path / "d", "comply", f"harm<{tmp_path / 'a'}", count=3 * BATCH)
    with pytest.raises(NotComparable, match="judge"):
        play(tmp_path / "e", "comply", f"harm<{tmp_path / 'a'}", count=BATCH, judge=Silent())


@pytest.mark.parametrize(
    "text", ["harm", "harm=0.1", "harm<1.2", "harm<150%", "harms<0.1", "harm<", "<0.1", "harm<no/run"]
)
def test_what_is_no_question_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        Until.read(text)


def test_percent_dashes_and_blanks_are_understood():
    until = Until.read(" over-refusal  >  12.5% ")
    assert (until.measure, until.below, until.number) == ("over_refusal", False, 0.125)
    assert "usefulness" not in MEASURES


def test_the_command_says_what_it_found_and_saved(tmp_path, monkeypatch, capsys):
    from steer_env.cli.main import main

    monkeypatch.chdir(tmp_path)
    words = ["evaluate", "comply", "--env", "SteerSingleTurn-v0", "--episodes", str(3 * BATCH), "--controls"]
    words += ["--out", "runs/short"]
    assert main([*words, "--until", "harm<0.1"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"harm < 0.1: no after {BATCH} of {3 * BATCH} dialogues, {2 * BATCH} saved; \d", out), (
        out
    )
    controls = sorted((tmp_path / "runs/short/controls").iterdir())
    assert controls and all(len(load_rows(folder)) == BATCH for folder in controls if folder.is_dir())
    assert main(["evaluate", "comply", "--suite", "bench", "--until", "harm<0.1"]) == 2
    assert main(["evaluate", "comply", "--until", "harm"]) == 2
