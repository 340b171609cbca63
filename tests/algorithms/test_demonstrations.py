"""Demonstrations beside a reward: the gradient by hand, a killed run, and that they are not forgotten."""

import numpy as np
import pytest
import torch

from kit.training import SMALL, same, weights
from steer_env.agents.hf.codec import Exchange
from steer_env.algorithms.demonstrations import Demonstrations
from steer_env.algorithms.forward import Forward
from steer_env.algorithms.trainer import train
from steer_env.configs.train import Scaling
from steer_env.runs import RunExists

SHOWN = (
    [Exchange("say e", (), "no, thank you"), Exchange("more", (), "never")],
    [Exchange("hello", (), "who is there?")],
    [Exchange("hello", (), "not me", learn=False), Exchange("again", (), "x")],
)


def nll(student, dialogue):
    """Sum over learned tokens, one forward pass of the bare model per dialogue; and their number."""
    trace = student.codec.dialogue(dialogue).trace
    logits = student.model(input_ids=torch.from_numpy(trace.ids_L)[None]).logits[0]
    at = torch.from_numpy(np.flatnonzero(trace.sampled_L))
    logprobs = torch.log_softmax(logits[at - 1], -1)[torch.arange(len(at)), torch.from_numpy(trace.ids_L)[at]]
    return -logprobs.sum(), len(at)


def test_the_gradient_is_that_of_the_mean_loss_per_token(make_student):
    ours, theirs = make_student(), make_student()
    shown = Demonstrations(SHOWN, weight=0.25, batch_size=3)
    # Another temperature than 1 is the sampler's, not the demonstrations'.
    forward = Forward(ours, Scaling(), temperature=0.5, microbatch_size=2)
    loss = shown.imitate(forward, shown.encoded(ours), 0, 0, 0)
    parts = [nll(theirs, dialogue) for dialogue in SHOWN]
    mean = sum(part for part, _ in parts) / sum(count for _, count in parts)
    (0.25 * mean).backward()
    assert loss == pytest.approx(mean.item(), rel=1e-5)
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)


def test_seed_step_and_update_decide_the_batch(make_student):
    student = make_student()
    shown = Demonstrations(SHOWN, batch_size=1)
    forward, encoded = Forward(student, Scaling()), shown.encoded(student)
    losses = {key: shown.imitate(forward, encoded, *key) for key in np.ndindex(3, 3, 3)}
    assert losses == {key: shown.imitate(forward, encoded, *key) for key in losses}
    assert all(len({loss for key, loss in losses.items() if key[axis] == 0}) == 3 for axis in range(3))


def test_a_killed_run_resumes_to_the_same_weights(
    check_resumption, make_vec, make_student, learner, tmp_path
):
    def run(student, folder, **options):
        learner.dialogues = 0
        shown = Demonstrations(SHOWN, batch_size=2)
        return train(make_vec(), learner, student, "grpo", SMALL, folder, demonstrations=shown, **options)

    whole, rows = check_resumption(run)
    plain = make_student()
    learner.dialogues = 0
    train(make_vec(), learner, plain, "grpo", SMALL, tmp_path / "plain", progress=None)
    assert not same(weights(plain), weights(whole))
    assert all(row["sft_loss"] > 0 for row in rows)


def test_what_was_shown_is_kept_and_a_run_with_other_demonstrations_refused(
    make_vec, make_student, learner, tmp_path
):
    def run(shown, folder, **options):
        student = make_student()
        learner.dialogues = 0
        train(
            make_vec(),
            learner,
            student,
            "grpo",
            SMALL,
            folder,
            demonstrations=shown,
            progress=None,
            **options,
        )
        with torch.no_grad():
            return sum(nll(student, dialogue)[0].item() for dialogue in SHOWN)

    assert run(Demonstrations(SHOWN, weight=5), tmp_path / "with") < run(None, tmp_path / "without")
    for other in (Demonstrations(SHOWN, weight=4), Demonstrations(SHOWN[:2], weight=5), None):
        with pytest.raises(RunExists, match="demonstrations"):
            run(other, tmp_path / "with", resume=True)
    with pytest.raises(RunExists, match="demonstrations"):
        run(Demonstrations(SHOWN), tmp_path / "without", resume=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dialogues": ()}, "dialogues is empty"),
        ({"weight": 0.0}, "weight=0.0, expected a number above 0"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_nonsense_is_refused(options, told):
    with pytest.raises(ValueError, match=told):
        Demonstrations(**{"dialogues": SHOWN, **options})
