"""A step's ratio starts at 1 whatever the sampler reports; the gap to it is weighed; updates stop in time."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import steer_env.algorithms.update as update
from kit.dialogues import batch, loss_and_gradient
from kit.training import Learner, same, weights
from steer_env.agents.hf import packed_logprobs
from steer_env.algorithms.base import Tally, make_algorithm
from steer_env.algorithms.forward import Forward
from steer_env.algorithms.losses import cispo_loss, sampler_weights
from steer_env.algorithms.trainer import TrainConfig, train
from steer_env.configs.train import Scaling

ONE = TrainConfig(
    steps=1, seeds_per_step=3, group_size=3, lr=3e-3, max_new_tokens=4, minibatch_size=4, microbatch_size=2,
    seed=3, unscored_limit=1.0, max_grad_norm=1e9,
)  # fmt: skip


@pytest.fixture
def server_student(make_student):
    """A student whose sampler reports log-probabilities that are off, as a server's are; by up to one nat."""

    def make(off=1.0):
        student = make_student()
        generate = student.decoder.generate

        def other(*args, **kwargs):
            samples = generate(*args, **kwargs)
            for sample in samples:
                sample.logprobs = [
                    min(p + off * float(np.sin(7 * i + t)), -1e-3)
                    for t, (i, p) in enumerate(zip(sample.ids, sample.logprobs, strict=True))
                ]
            return samples

        student.decoder.generate = other
        return student

    return make


@pytest.fixture
def seen(monkeypatch):
    """The batches that a loss was given, with the examples of each mini-batch and its gradient."""
    kept = {"tokens": [], "batches": [], "gradients": []}
    token_batch, accumulate = update._token_batch, update.accumulate

    def spy_tokens(forward, algorithm, part, *args, **kwargs):
        tokens = token_batch(forward, algorithm, part, *args, **kwargs)
        kept["tokens"].append((tokens, part))
        return tokens

    def spy(forward, algorithm, examples, *args, **kwargs):
        moved = accumulate(forward, algorithm, examples, *args, **kwargs)
        named = forward.student.model.named_parameters()
        kept["gradients"].append({n: p.grad.clone() for n, p in named if p.grad is not None})
        kept["batches"].append(examples)
        return moved

    monkeypatch.setattr(update, "_token_batch", spy_tokens)
    monkeypatch.setattr(update, "accumulate", spy)
    return kept


def run(make_vec, student, folder, config=ONE, name="grpo", scaling=None, **options):
    options = {"beta": 0.0} | options
    algorithm = make_algorithm(name, **options)
    return train(make_vec(), Learner(), student, algorithm, config, folder, scaling=scaling)


def alone(student, example):
    """Log-probabilities of one dialogue by itself."""
    return packed_logprobs(student.decoder.adapter, [example.dialogue], forbidden=student.decoder.forbidden)


# -- where the ratio starts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gspo", "grpo"])
def test_the_first_update_in_bf16_clips_nothing(name, make_vec, make_student, tmp_path):
    config = dataclasses.replace(ONE, minibatch_size=0, lr=0.0, max_new_tokens=24)
    student = make_student()
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(4.0)  # a distribution that is not nearly flat, as a trained model's
    (row,) = run(make_vec, student, tmp_path / "run", config, name, Scaling(precision="bf16"))
    # The sampler is further away than GSPO's clip, 4e-4.
    assert row["logprob_gap"] > 4e-4
    assert row["clipped"] == 0 == row["step_kl"]


@pytest.mark.parametrize("epochs", [1, 2])
def test_later_minibatches_compare_with_the_policy_before_the_first_update(
    epochs, make_vec, make_student, server_student, tmp_path, seen
):
    config = dataclasses.replace(ONE, epochs=epochs)
    (row,) = run(make_vec, server_student(), tmp_path / "run", config)
    assert row["logprob_gap_max"] > 0.5 and row["updates"] == 3 * epochs
    fresh, checked = make_student(), 0
    for tokens, part in seen["tokens"]:
        for place, example in enumerate(part):
            row_N = tokens.rows_N == place
            own = alone(fresh, example).logprobs_N
            assert torch.allclose(tokens.old_N[row_N], own, atol=1e-5)
            trace = example.dialogue.trace
            assert tokens.sampler_N[row_N].tolist() == pytest.approx(
                trace.logprobs_L[trace.sampled_L].tolist()
            )
            checked += 1
    assert checked == 9 * epochs
    first = [tokens for tokens, _ in seen["tokens"]][:2]
    assert all(torch.equal(tokens.old_N, tokens.logprobs_N.detach()) for tokens in first)
    last = seen["tokens"][-1][0]
    assert not torch.allclose(last.old_N, last.logprobs_N.detach(), atol=1e-4)


@pytest.mark.parametrize(("off", "passes"), [(0.0, 6), (1.0, 9)])
def test_passes_are_repeated_only_where_the_sampler_is_off(
    off, passes, make_vec, make_student, server_student, tmp_path, monkeypatch
):
    """Nine dialogues in mini-batches of 4, 4 and 1, two per pass: 5; the 5 left over take 3 more."""
    calls, policy = [], Forward.policy

    def counted(self, dialogues, **options):
        calls.append(len(dialogues))
        return policy(self, dialogues, **options)

    monkeypatch.setattr(Forward, "policy", counted)
    run(make_vec, server_student(off), tmp_path / "run")
    assert len(calls) == passes - 1


@pytest.mark.parametrize("mode", ["truncate", "mask", "none"])
def test_passes_of_any_size_have_the_same_gradients(mode, make_vec, server_student, tmp_path, seen):
    for size in (1, 9):
        config = dataclasses.replace(ONE, microbatch_size=size, lr=1e-4)
        run(make_vec, server_student(), tmp_path / str(size), config, sampler_weights=mode, sampler_bound=1.5)
    ones, nines = seen["gradients"][:3], seen["gradients"][3:]
    assert len(nines) == 3
    for one, nine in zip(ones, nines, strict=True):
        largest = max(value.abs().max() for value in one.values())
        assert all(torch.allclose(one[name], nine[name], atol=1e-3 * largest) for name in one)


# -- the gap to the sampler ----------------------------------------------------------------------------------


@given(st.floats(-6, 0), st.floats(-6, 0), st.floats(1.01, 8))
def test_weights_by_the_definition(old, sampler, bound):
    ratio = float(np.exp(np.float32(old) - np.float32(sampler)))
    pair = torch.tensor([old]), torch.tensor([sampler])
    for mode, expected, cut in (
        ("truncate", min(ratio, bound), ratio > bound),
        ("mask", ratio if 1 / bound <= ratio <= bound else 0.0, not 1 / bound <= ratio <= bound),
        ("none", 1.0, False),
    ):
        if min(abs(ratio - bound), abs(ratio - 1 / bound)) < 1e-4:
            continue
        weight, where = sampler_weights(*pair, mode, bound)
        assert weight.item() == pytest.approx(expected, rel=1e-4) and where.item() is cut


@pytest.mark.parametrize("mode", ["truncate", "mask", "none"])
def test_the_gradient_is_that_of_a_plain_loop(mode, make_vec, make_student, server_student, tmp_path, seen):
    config = dataclasses.replace(ONE, minibatch_size=0)
    (row,) = run(
        make_vec, server_student(), tmp_path / "run", config, sampler_weights=mode, sampler_bound=1.5
    )
    fresh, total, count, cut = make_student(), 0.0, 0, 0
    for example in seen["batches"][0]:
        trace = example.dialogue.trace
        logprobs = alone(fresh, example).logprobs_N
        for logprob, column in zip(logprobs, np.flatnonzero(trace.sampled_L), strict=True):
            if not example.mask_L[column]:
                continue
            ratio = float(np.exp(logprob.item() - trace.logprobs_L[column]))
            outside = ratio > 1.5 or (mode == "mask" and ratio < 1 / 1.5)
            weight = {"truncate": min(ratio, 1.5), "mask": 0.0 if outside else ratio, "none": 1.0}[mode]
            total = total - weight * float(example.advantages_L[column]) * logprob
            count, cut = count + 1, cut + outside
    (total / count).backward()
    for name, parameter in fresh.model.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, seen["gradients"][0][name], atol=1e-6), name
    assert cut > 0
    if mode == "none":
        assert "gap_cut" not in row
    else:
        assert row["gap_cut"] == pytest.approx(cut / count)


# -- CISPO ---------------------------------------------------------------------------------------------------


def test_cispo_hand_worked():
    # Ratios 8, 1/4 and 2: weights 5, 1/4 and 2, without gradient of their own; nothing is dropped.
    case = ([np.log(8), np.log(0.25), np.log(2)], [1.0, 1.0, -3.0], [0, 0, 1])
    loss, gradient = loss_and_gradient("cispo", *case, old=[0.0, 0.0, 0.0])
    assert gradient.tolist() == pytest.approx([-5 / 3, -0.25 / 3, 6 / 3])
    assert loss == pytest.approx((-5 * np.log(8) - 0.25 * np.log(0.25) + 6 * np.log(2)) / 3)
    _, clipped = loss_and_gradient("dapo", *case, old=[0.0, 0.0, 0.0])
    assert clipped[0] == 0.0  # what the clip of the surrogate would have dropped
    _, bounded = loss_and_gradient("cispo", *case, old=[0.0] * 3, options={"clip_low": 0.5, "clip_high": 0.5})
    assert bounded.tolist() == pytest.approx([-1.5 / 3, -0.5 / 3, 4.5 / 3])


@given(
    st.lists(
        st.tuples(st.floats(-4, 0), st.floats(-4, 0), st.floats(-2, 2), st.integers(0, 2)),
        min_size=1,
        max_size=8,
    )
)
def test_cispo_by_the_definition(tokens):
    new, old, advantages, rows = zip(*sorted(tokens, key=lambda t: t[3]), strict=True)
    loss, gradient = loss_and_gradient("cispo", list(new), list(advantages), list(rows), old=list(old))
    weight = [min(np.exp(n - o), 5.0) for n, o in zip(new, old, strict=True)]
    terms = [-w * a * n for w, a, n in zip(weight, advantages, new, strict=True)]
    assert loss == pytest.approx(sum(terms) / len(terms), rel=1e-6, abs=1e-9)
    assert np.allclose(gradient, [-w * a / len(terms) for w, a in zip(weight, advantages, strict=True)])


def test_on_policy_cispo_is_the_policy_gradient():
    case = ([-1.0, -2.0, -0.5], [1.0, -2.0, 0.5], [0, 0, 1])
    _, cispo = loss_and_gradient("cispo", *case)
    _, dapo = loss_and_gradient("dapo", *case)
    assert np.allclose(cispo, dapo)
    values, where = cispo_loss(torch.tensor([-1.0]), torch.zeros(1), torch.tensor([2.0]))
    assert (values.item(), where.item()) == (2.0, False)


def test_a_sampler_that_agrees_changes_no_loss():
    tokens = batch([-1.0, -2.0], [1.0, -1.0], [0, 1])
    plain = make_algorithm("grpo").loss(tokens)
    agreed = dataclasses.replace(tokens, sampler_N=tokens.old_N, tally=Tally())
    assert make_algorithm("grpo").loss(agreed).item() == plain.item()
    assert agreed.tally.means()["gap_cut"] == 0


# -- the target KL -------------------------------------------------------------------------------------------


def test_a_step_stops_once_the_policy_is_too_far(make_vec, make_student, tmp_path):
    def end(folder, **settings):
        student = make_student()
        config = dataclasses.replace(ONE, minibatch_size=0, lr=2e-2, **settings)
        (row,) = run(make_vec, student, tmp_path / folder, config)
        return weights(student), row

    whole, row = end("whole", epochs=3)
    assert row["updates"] == 3 and row["step_kl"] > 1e-3
    once, _ = end("once", epochs=1)
    stopped, row = end("stopped", epochs=3, target_kl=1e-4)
    assert row["updates"] == 1  # the first is always taken
    assert same(stopped, once) and not same(stopped, whole)
    free, row = end("free", epochs=3, target_kl=1e3)
    assert same(free, whole)


def test_how_far_it_moved_is_the_kl_of_old_to_new(make_vec, make_student, tmp_path, seen):
    config = dataclasses.replace(ONE, minibatch_size=0, lr=2e-2, epochs=2)
    (row,) = run(make_vec, make_student(), tmp_path / "run", config)
    values = [
        np.exp(new - old) - 1 - (new - old)
        for tokens, _ in seen["tokens"]
        for new, old in zip(
            tokens.logprobs_N[tokens.mask_N].tolist(), tokens.old_N[tokens.mask_N].tolist(), strict=True
        )
    ]
    assert row["step_kl"] == pytest.approx(np.mean(values), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler_weights": "clip"}, "sampler_weights='clip', expected one of 'truncate', 'mask', 'none'"),
        ({"sampler_bound": 1.0}, "sampler_bound=1.0, expected a finite number above 1"),
        ({"surrogate": "ppo"}, "surrogate='ppo', expected one of 'clip', 'cispo'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_algorithm("grpo", **options)
