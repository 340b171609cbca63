import dataclasses
import json

import numpy as np
import pytest
import torch

from steer_env.agents.base import Failed
from steer_env.agents.hf import HFStudent
from steer_env.algorithms import trainer
from steer_env.algorithms.checkpoints import checkpoints
from steer_env.algorithms.grpo import GRPOConfig
from steer_env.algorithms.trainer import step_seeds
from steer_env.models.tiny import load
from steer_env.records import JsonlWriter
from steer_env.runs import RunExists
from steer_env.types import Unscored, Utterance
from steer_env.unscored import TooManyUnscored

SMALL = GRPOConfig(
    steps=4, seeds_per_step=3, group_size=3, lr=3e-3, beta=0.05, max_new_tokens=4, minibatch_size=5,
    microbatch_size=2, epochs=2, checkpoint_every=2, seed=3,
)  # fmt: skip


def train(env, attacker, student, config, run_dir, **options):
    """Train with GRPO as its settings ask for it."""
    return trainer.train(env, attacker, student, config.algorithm(), config, run_dir, **options)


def weights(student):
    return {name: value.clone() for name, value in student.model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def rows_of(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


TIMES = ("seconds_play", "seconds_update")


def timeless(rows):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


@pytest.fixture
def whole_run(make_vec, make_student, learner, tmp_path):
    student = make_student()
    rows = train(make_vec(), learner, student, SMALL, tmp_path / "whole")
    return student, rows, learner.dialogues


def test_training_changes_weights_and_is_reproducible(whole_run, make_vec, make_student, tmp_path):
    student, rows, dialogues = whole_run
    again = make_student()
    assert not same(weights(student), weights(again))
    rows_again = train(make_vec(), type_of_learner(), again, SMALL, tmp_path / "again")
    assert same(weights(student), weights(again))
    assert timeless(rows) == timeless(rows_again)
    assert dialogues == 4 * 9


def type_of_learner():
    from kit.training import Learner

    return Learner()


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("at", [1, 3])
def test_a_run_that_breaks_off_resumes_to_the_same_weights(
    whole_run, make_vec, make_student, learner, tmp_path, at, error
):
    student, rows, dialogues = whole_run
    learner.dialogues = 0
    run = tmp_path / "broken"

    def stop(done, total, row):
        if done == at:
            raise error

    with pytest.raises(error):
        train(make_vec(), learner, make_student(), SMALL, run, progress=stop)
    assert len(rows_of(run)) == at
    learner.dialogues = -1  # the memory comes from the checkpoint, not from the object
    resumed = make_student()
    rows_resumed = train(make_vec(), learner, resumed, SMALL, run, resume=True)
    assert same(weights(resumed), weights(student))
    assert timeless(rows_resumed) == timeless(rows) == timeless(rows_of(run))
    assert learner.dialogues == dialogues


def test_a_killed_run_drops_metrics_beyond_its_checkpoint(
    whole_run, make_vec, make_student, learner, tmp_path, monkeypatch
):
    student, rows, _ = whole_run
    learner.dialogues = 0
    run = tmp_path / "killed"

    def die(done, total, row):
        if done == 3:
            # As after kill -9: nothing is saved on the way out, and a line is torn.
            monkeypatch.setattr("steer_env.algorithms.trainer.save_checkpoint", lambda *a, **k: None)
            raise Stop

    with pytest.raises(Stop):
        train(make_vec(), learner, make_student(), SMALL, run, progress=die)
    monkeypatch.undo()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "retu')
    resumed = make_student()
    train(make_vec(), learner, resumed, SMALL, run, resume=True)
    assert same(weights(resumed), weights(student))
    assert timeless(rows_of(run)) == timeless(rows)


def test_an_interrupted_rollout_keeps_the_finished_steps(make_vec, make_student, learner, tmp_path):
    run, calls = tmp_path / "run", []

    class Impatient(type(learner)):
        def act(self, observations):
            calls.append(1)
            if len(calls) > 7:
                raise KeyboardInterrupt
            return super().act(observations)

    with pytest.raises(KeyboardInterrupt):
        train(make_vec(), Impatient(), make_student(), SMALL, run)
    done = len(rows_of(run))
    assert 0 < done < 4
    assert checkpoints(run)[-1].name == f"step_{done:06d}"


@pytest.mark.parametrize(("calls", "kept"), [(2, []), (14, ["step_000002"])])
def test_an_error_within_an_update_saves_no_state_between_steps(
    whole_run, make_vec, make_student, learner, tmp_path, monkeypatch, calls, kept
):
    student, rows, dialogues = whole_run
    truth = {folder.name: load(folder)[0].state_dict() for folder in checkpoints(tmp_path / "whole")}
    learner.dialogues, run, seen = 0, tmp_path / "broken", []
    step = torch.optim.AdamW.step

    def failing(self, *args, **kwargs):
        seen.append(1)
        result = step(self, *args, **kwargs)
        if len(seen) == calls:
            raise RuntimeError("out of memory")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", failing)
        with pytest.raises(RuntimeError, match="out of memory"):
            train(make_vec(), learner, make_student(), SMALL, run)
    assert [folder.name for folder in checkpoints(run)] == kept
    for folder in checkpoints(run):
        assert same(truth[folder.name], load(folder)[0].state_dict())
    learner.dialogues = 0
    resumed = make_student()
    rows_resumed = train(make_vec(), learner, resumed, SMALL, run, resume=True)
    assert same(weights(resumed), weights(student))
    assert timeless(rows_resumed) == timeless(rows) == timeless(rows_of(run))
    assert learner.dialogues == dialogues


def test_a_row_that_cannot_be_written_leaves_the_last_checkpoint(
    whole_run, make_vec, make_student, learner, tmp_path, monkeypatch
):
    student, rows, _ = whole_run
    learner.dialogues, run = 0, tmp_path / "full"
    write = JsonlWriter.write

    def failing(self, row):
        if row["step"] == 3:
            raise OSError("no space left on device")
        write(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(JsonlWriter, "write", failing)
        with pytest.raises(OSError, match="no space left"):
            train(make_vec(), learner, make_student(), SMALL, run)
    assert [folder.name for folder in checkpoints(run)] == ["step_000002"]
    resumed = make_student()
    train(make_vec(), learner, resumed, SMALL, run, resume=True)
    assert same(weights(resumed), weights(student))
    assert timeless(rows_of(run)) == timeless(rows)


def test_weights_that_lose_small_updates_are_refused_before_anything_is_written(
    make_vec, make_student, learner, tmp_path
):
    student = make_student()
    student.model.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"dtype=torch.bfloat16, expected torch.float32.*--dtype float32"):
        train(make_vec(), learner, student, SMALL, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_memory_that_no_checkpoint_can_hold_is_refused_at_once(make_vec, make_student, learner, tmp_path):
    class Odd(type(learner)):
        def state_dict(self):
            return {"learner": self}

    with pytest.raises(TypeError, match=r"Odd.state_dict\(\) returned .* expected dicts, lists"):
        train(make_vec(), Odd(), make_student(), SMALL, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_an_ordinary_model_folder(whole_run, tmp_path):
    student, _, _ = whole_run
    folders = checkpoints(tmp_path / "whole")
    assert [f.name for f in folders] == ["step_000002", "step_000004"]
    model, _ = load(folders[-1])
    assert same(dict(model.state_dict()), weights(student))


def test_reward_rises(make_vec, make_student, learner, tmp_path):
    config = dataclasses.replace(
        SMALL, steps=25, seeds_per_step=4, group_size=6, lr=1e-2, beta=0.0, epochs=1, minibatch_size=0,
        microbatch_size=64, checkpoint_every=100,
    )  # fmt: skip
    rows = train(make_vec(slots=24), learner, make_student(), config, tmp_path / "run")
    returns = [row["return"] for row in rows]
    assert np.mean(returns[-5:]) > 1.5 * np.mean(returns[:5])


def test_metrics_say_what_happened(whole_run):
    _, rows, _ = whole_run
    first = rows[0]
    assert first["logprob_gap_max"] < 1e-4
    assert first["kl"] >= 0
    assert rows[-1]["kl"] > 0
    assert 0 <= first["clipped"] <= 1
    assert 0 < first["entropy"] < np.log(264)
    assert 0 < first["reply_tokens"] <= 4
    assert first["usefulness"] == 5
    assert first["unscored"] == 0
    assert first["cost"] is not None
    assert 1 <= first["turns"] <= 2


def test_microbatches_change_nothing_but_memory(make_vec, make_student, tmp_path):
    students = []
    for size, tokens in ((1, 2048), (64, 2048), (64, 1), (64, 10**6)):
        student = make_student()
        config = dataclasses.replace(
            SMALL, steps=1, epochs=1, minibatch_size=0, microbatch_size=size, microbatch_tokens=tokens
        )
        train(make_vec(), type_of_learner(), student, config, tmp_path / f"{size}.{tokens}")
        students.append(weights(student))
    for other in students[1:]:
        for name in other:
            assert torch.allclose(students[0][name], other[name], atol=1e-5), name


@pytest.mark.parametrize("aggregation", ["token", "sequence"])
def test_the_gradient_is_that_of_the_formula(make_vec, make_student, tmp_path, aggregation, monkeypatch):
    """The loss against a plain loop over tokens of one dialogue at a time."""
    import steer_env.algorithms.update as update
    from steer_env.agents.hf import packed_logprobs

    config = dataclasses.replace(
        SMALL,
        steps=1,
        epochs=1,
        minibatch_size=0,
        microbatch_size=2,
        beta=0.0,
        aggregation=aggregation,
        max_grad_norm=1e9,
    )
    student, seen = make_student(), {}
    original = update.accumulate

    def spy(forward, algorithm, batch, *args, **kwargs):
        original(forward, algorithm, batch, *args, **kwargs)
        seen["batch"] = batch
        seen["grad"] = {n: p.grad.clone() for n, p in student.model.named_parameters() if p.grad is not None}

    monkeypatch.setattr(update, "accumulate", spy)
    train(make_vec(), type_of_learner(), student, config, tmp_path / "run")
    fresh = make_student()
    losses, count = [], 0
    for example in seen["batch"]:
        packed = packed_logprobs(fresh.decoder.adapter, [example.dialogue], forbidden=fresh.decoder.forbidden)
        keep = torch.from_numpy(example.mask_L[example.dialogue.trace.sampled_L])
        advantage = torch.from_numpy(example.advantages_L[example.dialogue.trace.sampled_L])
        terms = -(packed.logprobs_N * advantage)[keep]  # same gradient as the ratio at the sampling policy
        losses.append(terms.sum() if aggregation == "token" else terms.mean())
        count += int(keep.sum()) if aggregation == "token" else 1
    (torch.stack(losses).sum() / count).backward()
    for name, parameter in fresh.model.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, seen["grad"][name], atol=1e-6), name


def test_an_unscored_turn_carries_no_gradient(make_vec, make_student, tmp_path):
    class Never:
        name = "never"

        def judge(self, requests):
            return [Unscored("asleep")] * len(requests)

    student = make_student()
    before = weights(student)
    config = dataclasses.replace(SMALL, steps=2, unscored_limit=1.0, weight_decay=0.0)
    rows = train(make_vec(Never()), type_of_learner(), student, config, tmp_path / "run")
    assert same(before, weights(student))
    assert rows[0]["return"] is None
    assert rows[0]["unscored"] == 1


def test_too_many_unscored_turns_stop_the_run_with_the_reasons(
    make_vec, make_student, letter_judge, tmp_path
):
    config = dataclasses.replace(SMALL, steps=40, seeds_per_step=8, unscored_limit=0.1)
    with pytest.raises(TooManyUnscored, match=r"expected at most 10.0%: \d+ x no ground.*unscored_limit"):
        train(make_vec(letter_judge(3)), type_of_learner(), make_student(), config, tmp_path / "run")


class Flaky:
    """An attacker whose server is lost at times: at the start of a dialogue, or in its second turn."""

    def __init__(self, every):
        self.every, self.asked = every, 0

    def act(self, observations):
        return [self._one(o) for o in observations]

    def _one(self, observation):
        self.asked += 1
        return Failed("connection lost") if self.asked % self.every == 0 else Utterance(observation["draft"])


def test_failed_dialogues_are_left_out_of_training_and_counted(make_vec, make_student, tmp_path):
    config = dataclasses.replace(SMALL, unscored_limit=1.0)
    rows = train(make_vec(), Flaky(7), make_student(), config, tmp_path / "some")
    assert any(row["failed"] > 0 for row in rows)
    assert all(0 <= row["failed"] < 1 and np.isfinite(row["loss"]) for row in rows)
    untouched, student = make_student(), make_student()
    rows = train(make_vec(), Flaky(1), student, config, tmp_path / "all")
    assert all(row["failed"] == 1 and row["return"] is None for row in rows)
    assert same(weights(student), weights(untouched)), "nothing was learnt from nothing"


def test_too_many_failed_dialogues_stop_the_run_with_the_reasons(make_vec, make_student, tmp_path):
    config = dataclasses.replace(SMALL, steps=40, seeds_per_step=8, unscored_limit=0.1)
    with pytest.raises(TooManyUnscored, match=r"10.0%: \d+ x attacker_0: connection lost.*agent that failed"):
        train(make_vec(), Flaky(3), make_student(), config, tmp_path / "run")


def test_a_run_folder_is_never_overwritten(whole_run, make_vec, make_student, learner, tmp_path):
    before = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    with pytest.raises(RunExists, match=r"holds a run.*resume=True"):
        train(make_vec(), learner, make_student(), SMALL, tmp_path / "whole")
    with pytest.raises(RunExists, match=r"another run \(lr: 0.003 there, 0.5 now\)"):
        train(
            make_vec(),
            learner,
            make_student(),
            dataclasses.replace(SMALL, lr=0.5),
            tmp_path / "whole",
            resume=True,
        )
    assert (tmp_path / "whole" / "metrics.jsonl").read_bytes() == before


def test_seeds_of_a_step_are_groups_and_differ_between_steps():
    seeds = step_seeds(SMALL, 0)
    assert [len(set(seeds[i : i + 3])) for i in (0, 3, 6)] == [1, 1, 1]
    assert len(set(seeds)) == 3
    assert not set(seeds) & set(step_seeds(SMALL, 1))


def test_a_student_without_tokens_is_refused(make_vec, make_student, learner, tmp_path):
    class Parrot(HFStudent):
        def act(self, observations):
            return [Utterance("e")] * len(observations)

    model = make_student()
    with pytest.raises(ValueError, match="has no token trace, expected replies of an HFStudent"):
        train(make_vec(), learner, Parrot(model.model, model.processor), SMALL, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_size": 1}, "group_size=1, expected an integer of at least 2: advantages"),
        ({"temperature": 0.0}, "temperature=0.0, expected a finite number above 0: greedy"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.0}, "steps=2.0, expected an integer of at least 1"),
        ({"epochs": True}, "epochs=True, expected an integer"),
        ({"seed": -1}, "seed=-1, expected an integer of at least 0"),
        ({"beta": -1.0}, "beta=-1.0"),
        ({"lr": float("nan")}, "lr=nan, expected a finite number of at least 0"),
        ({"lr": float("inf")}, "lr=inf"),
        ({"lr": -1e-4}, "lr=-0.0001"),
        ({"lr": "1e-4"}, "lr='1e-4'"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0, expected a finite number above 0"),
        ({"kl": "k1"}, "kl='k1', expected one of 'k2', 'k3', 'reward'; the gradient of k1"),
        ({"aggregation": "mean"}, "aggregation='mean', expected one of 'token', 'sequence', 'constant'"),
        ({"minibatch_size": -1}, "minibatch_size=-1, expected an integer of at least 0"),
        ({"clip_low": 1.5}, "clip_low=1.5, expected a finite number above 0 and at most 1"),
        ({"clip_high": 0.0}, "clip_high=0.0, expected a finite number above 0"),
        ({"unscored_limit": 1.1}, "unscored_limit=1.1, expected a finite number of at least 0 and at most 1"),
        ({"unscored_window": 0}, "unscored_window=0"),
        ({"warmup": -1}, "warmup=-1, expected an integer of at least 0"),
        ({"scale": "yes"}, "scale='yes', expected True or False"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)
