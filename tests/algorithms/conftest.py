"""A toy environment, a tiny random student and a judge one can learn to please."""

import pytest
import torch

from kit.training import SCENARIOS, Learner, LetterJudge, Rewarded, same, timeless, tiny_student, weights
from steer_env.vector import VectorDialogueEnv


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def make_vec():
    def make(judge=None, slots=8):
        judge = judge or LetterJudge()
        return VectorDialogueEnv([lambda: Rewarded(SCENARIOS, judge)] * slots)

    return make


@pytest.fixture
def make_student():
    return tiny_student


@pytest.fixture
def learner():
    return Learner()


@pytest.fixture
def letter_judge():
    return LetterJudge


class Killed(BaseException):
    pass


@pytest.fixture
def check_resumption(make_student, tmp_path, monkeypatch):
    """Train through, and again killed after step 3 of 4 with a checkpoint after step 2."""

    def check(run):
        whole = make_student()
        rows = run(whole, tmp_path / "whole")

        def die(done, total, row):
            if done == 3:
                # As after kill -9: nothing is saved on the way out.
                monkeypatch.setattr("steer_env.algorithms.trainer.save_checkpoint", lambda *a, **k: None)
                raise Killed

        with pytest.raises(Killed):
            run(make_student(), tmp_path / "broken", progress=die)
        monkeypatch.undo()
        again = make_student()
        rows_again = run(again, tmp_path / "broken", resume=True)
        assert timeless(rows_again) == timeless(rows)
        assert same(weights(whole), weights(again))
        return whole, rows

    return check
