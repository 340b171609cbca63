"""Schedules, averaged weights and evaluations in a run: against plain loops, and resumed bit for bit."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch

from kit.training import Learner, MoodyJudge, same, timeless, weights
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.checkpoints import Average, checkpoints
from steer_env.algorithms.curriculum import Curriculum
from steer_env.algorithms.monitor import Validation
from steer_env.algorithms.trainer import TrainConfig, step_seeds, train
from steer_env.configs.train import Scaling, Stage
from steer_env.models.tiny import load
from steer_env.rollout import rollout
from steer_env.runs import RunExists
from steer_env.unscored import UnscoredGuard

SMALL = TrainConfig(
    steps=4, seeds_per_step=2, group_size=2, lr=3e-3, max_new_tokens=4, minibatch_size=3, microbatch_size=2,
    checkpoint_every=2, seed=6, unscored_limit=1.0,
)  # fmt: skip
#: Everything at once.
KEPT = dataclasses.replace(
    SMALL, lr_schedule="cosine", warmup=1, final_lr=0.2, average="tail", eval_every=2, eval_dialogues=5,
    final_weights="average",
)  # fmt: skip


def run(make_vec, student, folder, config, attacker=None, **options):
    return train(
        make_vec(), attacker or Learner(), student, make_algorithm("grpo"), config, folder, **options
    )


class Path:
    """Keeps the weights after every step."""

    def __init__(self, student):
        self.student, self.steps = student, []

    def __call__(self, done, total, row):
        self.steps.append(weights(self.student))


def close(a, b):
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], atol=1e-6) for n in a)


# -- schedules -----------------------------------------------------------------------------------------------


def test_the_optimiser_gets_the_rate_of_the_step(make_vec, make_student, tmp_path, monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        seen.append([group["lr"] for group in self.param_groups])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    config = dataclasses.replace(SMALL, minibatch_size=0, lr_schedule="linear", warmup=1, lr=0.5)
    algorithm = make_algorithm("ppo", head_lr=0.25)
    rows = train(make_vec(), Learner(), make_student(), algorithm, config, tmp_path / "run")
    expected = [0.5, 1.0, 2 / 3, 1 / 3]
    assert seen == [pytest.approx([0.5 * share, 0.25 * share]) for share in expected]
    assert [row["lr"] for row in rows] == pytest.approx([0.5 * share for share in expected])


def test_the_number_of_steps_stays_where_earlier_ones_depend_on_it(make_vec, make_student, tmp_path):
    for number, change in enumerate(({"lr_schedule": "linear"}, {"average": "tail"})):
        config = dataclasses.replace(SMALL, steps=2, **change)
        run(make_vec, make_student(), tmp_path / str(number), config)
        with pytest.raises(RunExists, match="steps: 2 there, 3 now"):
            more = dataclasses.replace(config, steps=3)
            run(make_vec, make_student(), tmp_path / str(number), more, resume=True)
    run(make_vec, make_student(), tmp_path / "constant", dataclasses.replace(SMALL, steps=2, average="ema"))
    run(
        make_vec,
        make_student(),
        tmp_path / "constant",
        dataclasses.replace(SMALL, steps=3, average="ema"),
        resume=True,
    )


# -- averaged weights ----------------------------------------------------------------------------------------


def test_means_hand_worked():
    model = torch.nn.Linear(1, 1, bias=False)

    def means(kind, values, steps=4):
        average, seen = Average(model, kind, 0.5, steps), []
        for step, value in enumerate(values):
            torch.nn.init.constant_(model.weight, value)
            average.take(step)
            with average.applied():
                seen.append(model.weight.item())
            assert model.weight.item() == value
        return seen

    assert means("tail", [1.0, 2.0, 4.0, 8.0]) == [1.0, 2.0, 4.0, 6.0]  # before there is a mean: the weights
    assert means("tail", [1.0, 2.0, 6.0], 3) == [1.0, 2.0, 4.0]
    # Shares of the newest: 1, 1/2, then 1/2 as 1/3 would be less.
    assert means("ema", [1.0, 3.0, 4.0, 9.0]) == [1.0, 2.0, 3.0, 6.0]


@pytest.mark.parametrize("kind", ["tail", "ema"])
@pytest.mark.parametrize("lora", [0, 2])
def test_the_mean_is_that_of_a_plain_loop(kind, lora, make_vec, make_student, tmp_path):
    student = make_student()
    seen = Path(student)
    config = dataclasses.replace(SMALL, steps=5, average=kind, average_decay=0.6, final_weights="average")
    run(make_vec, student, tmp_path / "run", config, progress=seen, scaling=Scaling(lora_rank=lora))
    taken = seen.steps[2:] if kind == "tail" else seen.steps
    mean = copy.deepcopy(taken[0])
    for number, values in enumerate(taken[1:], 2):
        share = 1 / number if kind == "tail" else max(1 / number, 0.4)
        mean = {name: (1 - share) * mean[name] + share * values[name] for name in mean}
    if kind == "tail":
        assert close(mean, {name: sum(w[name] for w in taken) / len(taken) for name in mean})
    assert close(weights(student), mean)
    assert not close(weights(student), seen.steps[-1])
    if not lora:  # the folders are ordinary models
        last = checkpoints(tmp_path / "run")[-1]
        assert same(dict(load(last)[0].state_dict()), seen.steps[-1])
        assert same(dict(load(last / "average")[0].state_dict()), weights(student))


# -- evaluation ----------------------------------------------------------------------------------------------


class Heard(Learner):
    """Remembers what it said, which depends on how much it has learnt."""

    def __init__(self):
        super().__init__()
        self.said = []

    def act(self, observations):
        replies = super().act(observations)
        self.said.append([str(reply) for reply in replies])
        return replies


def test_evaluations_play_the_same_dialogues_and_leave_the_run_alone(make_vec, make_student, tmp_path):
    plain, looked = make_student(), make_student()
    rows = run(make_vec, plain, tmp_path / "plain", SMALL)
    attacker, played = Heard(), []

    def keep(done, total, row):
        played.append((attacker.said, row))
        attacker.said = []

    config = dataclasses.replace(SMALL, eval_every=1, eval_dialogues=5)
    evaluated = run(make_vec, looked, tmp_path / "looked", config, attacker, progress=keep)
    assert same(weights(plain), weights(looked))
    assert timeless(rows) == [
        {k: v for k, v in row.items() if not k.startswith("eval_") and k != "best_step"}
        for row in timeless(evaluated)
    ]
    assert attacker.dialogues == 16
    asked = [[text for batch in said[-2:] for text in batch] for said, _ in played]
    assert len(asked[0]) >= 5 and all(other == asked[0] for other in asked)
    assert all(text.endswith(" 0") for text in asked[0])  # as before the first step
    assert not any(text.endswith(" 0") for batch in played[1][0][:-2] for text in batch)


def test_the_value_is_that_of_greedy_dialogues(make_vec, make_student, tmp_path):
    config = dataclasses.replace(SMALL, steps=1, eval_every=1, eval_dialogues=6)
    student = make_student()
    (row,) = run(make_vec, student, tmp_path / "run", config)
    seeds = [int(s) for s in np.random.SeedSequence([0xE7A1]).generate_state(6)]
    assert not set(seeds) & set(step_seeds(config, 0))
    student.temperature = 0.0
    student.weights_changed()
    played = rollout(make_vec(), Learner(), student, seeds)
    assert row["eval_return_per_turn"] == pytest.approx(np.mean([t.total / len(t.turns) for t in played]))
    safety = [r.turn.verdict.terms.safety for t in played for r in t.turns]
    assert row["eval_safety"] == pytest.approx(np.mean(safety))
    assert row["eval_unscored"] == 0


def test_the_student_ends_with_the_best_step(make_vec, make_student, tmp_path):
    student = make_student()
    seen = Path(student)
    config = dataclasses.replace(
        SMALL, steps=6, lr=2e-2, eval_every=2, eval_dialogues=6, final_weights="best", seed=5
    )
    rows = run(make_vec, student, tmp_path / "run", config, progress=seen)
    values = {n: row["eval_return_per_turn"] for n, row in enumerate(rows, 1) if "best_step" in row}
    assert list(values) == [2, 4, 6]
    best = max(values, key=values.get)
    assert rows[-1]["best_step"] == best
    assert same(weights(student), seen.steps[best - 1])
    assert same(dict(load(tmp_path / "run" / "best")[0].state_dict()), weights(student))


@pytest.mark.parametrize("final", ["average", "last"])
def test_the_mean_is_evaluated_where_it_is_what_the_run_ends_with(
    final, make_vec, make_student, tmp_path, monkeypatch
):
    student, looked_at = make_student(), []
    evaluate = Validation.run

    def spy(self, play, finished):
        looked_at.append(weights(student))
        return evaluate(self, play, finished)

    monkeypatch.setattr(Validation, "run", spy)
    seen = Path(student)
    run(make_vec, student, tmp_path / "run", dataclasses.replace(KEPT, final_weights=final), progress=seen)
    assert same(looked_at[0], seen.steps[1])  # there is no mean yet after half of the steps
    assert same(looked_at[1], weights(student))
    assert same(looked_at[1], seen.steps[3]) is (final == "last")


def test_a_curriculum_needs_an_environment_to_be_evaluated_in(make_vec, make_student, tmp_path):
    curriculum = Curriculum(
        [Stage({"slots": 2}, steps=3), Stage({"slots": 4})], lambda slots: make_vec(slots=slots)
    )
    algorithm, config = make_algorithm("grpo"), dataclasses.replace(SMALL, eval_every=2, steps=2)
    with pytest.raises(ValueError, match="eval_every=2 with a curriculum, expected an eval_env"):
        train(curriculum, Learner(), make_student(), algorithm, config, tmp_path / "run")
    rows = train(
        curriculum, Learner(), make_student(), algorithm, config, tmp_path / "run", eval_env=make_vec()
    )
    assert rows[1]["best_step"] == 2


# -- together ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("final", ["average", "best", "last"])
def test_a_killed_run_resumes_to_the_same_weights_means_and_best(final, check_resumption, make_vec, tmp_path):
    config = dataclasses.replace(KEPT, final_weights=final, eval_every=1)

    def again(student, folder, **options):
        return train(
            make_vec(MoodyJudge()), Learner(), student, make_algorithm("rloo"), config, folder, **options
        )

    check_resumption(again)
    for name in ("average", "best"):
        whole, broken = (
            checkpoints(tmp_path / run)[-1] / name if name == "average" else tmp_path / run / name
            for run in ("whole", "broken")
        )
        assert same(dict(load(whole)[0].state_dict()), dict(load(broken)[0].state_dict()))


def test_a_finished_run_that_is_resumed_ends_with_the_same_weights(make_vec, make_student, tmp_path):
    whole, again = make_student(), make_student()
    rows = run(make_vec, whole, tmp_path / "run", KEPT)
    assert json.loads(json.dumps(rows)) == run(make_vec, again, tmp_path / "run", KEPT, resume=True)
    assert same(weights(whole), weights(again))


def test_the_window_of_unscored_turns_goes_on_after_a_resumption(
    make_vec, make_student, tmp_path, monkeypatch
):
    seen, see = [], UnscoredGuard.see

    def spy(self, trajectories):
        seen.append(len(self.state_dict()["steps"]))
        see(self, trajectories)
        if len(seen) == 4:
            raise KeyboardInterrupt  # the step was looked at, not learnt from

    monkeypatch.setattr(UnscoredGuard, "see", spy)
    with pytest.raises(KeyboardInterrupt):
        run(make_vec, make_student(), tmp_path / "run", SMALL)
    run(make_vec, make_student(), tmp_path / "run", SMALL, resume=True)
    assert seen == [0, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr_schedule": "step"}, "lr_schedule='step', expected one of 'constant', 'linear', 'cosine'"),
        ({"final_lr": 1.5}, "final_lr=1.5, expected a finite number"),
        ({"average": "swa"}, "average='swa', expected one of 'none', 'tail', 'ema'"),
        ({"eval_every": -1}, "eval_every=-1, expected an integer of at least 0"),
        ({"eval_dialogues": 0}, "eval_dialogues=0"),
        ({"final_weights": "first"}, "final_weights='first', expected one of 'last', 'average', 'best'"),
        (
            {"final_weights": "average"},
            "final_weights='average' with average='none', expected average to be set",
        ),
        ({"final_weights": "best"}, "final_weights='best' with eval_every=0, expected eval_every to be set"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)
