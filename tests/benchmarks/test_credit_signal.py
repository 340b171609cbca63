import json

import numpy as np
import pytest

pytest.importorskip("torch")

import steer_env
from benchmarks import credit_signal
from benchmarks.credit_signal import ROWS, advantages, main, signal_and_noise, under
from steer_env.agents.scripted import RandomStudent
from steer_env.algorithms.credit import reward_ledger
from steer_env.rollout import rollout
from steer_env.trajectory import group_by_seed
from steer_env.wrappers import TCSR, TurnReward

MODES = ("sum", "final", "mean")


def played(returns, k=1):
    env = steer_env.make_vec(
        "SteerEscalation-v0", 6, wrappers=(TurnReward, lambda env: TCSR(env, returns=returns)), max_turns=4
    )
    seeds = [s for s in range(4) for _ in range(k)]
    return rollout(env, steer_env.make_agent("static", seat="attacker_0"), RandomStudent(3), seeds)


@pytest.mark.parametrize("returns", MODES)
def test_dialogues_under_another_return_are_as_if_played_under_it(returns):
    for other in MODES:
        for one, two in zip(played(other), played(returns), strict=True):
            moved, expected = under(reward_ledger(one), returns, 0.3), reward_ledger(two)
            assert moved.own_T == pytest.approx(expected.own_T)
            assert moved.shares_T == pytest.approx(expected.shares_T) and moved.total == pytest.approx(
                expected.total
            )


def test_every_row_gives_each_turn_an_advantage():
    (group,) = group_by_seed(played("sum", 3)[:3], 3)
    for row in ROWS:
        found = advantages(group, row, 0.3, 0.5)
        assert [len(a) for a in found] == [len(t.turns) for t in group.trajectories]
        assert np.abs(sum(found)).max() < 1e-9


def test_signal_by_loops_and_by_hand():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(6, 5)).astype(np.float32)
    found = signal_and_noise(gradients, rng)
    across = [float(a @ b) for i, a in enumerate(gradients) for j, b in enumerate(gradients) if i != j]
    own = [float(a @ a) for a in gradients]
    assert found["signal"] == pytest.approx(np.mean(across) / np.mean(own), abs=1e-6)
    same = signal_and_noise(np.ones((8, 3), np.float32), rng)
    assert same["signal"] == pytest.approx(1.0) and same["cosine"] == pytest.approx(1.0)
    assert same["snr"] > 1e6  # no noise at all
    assert np.isnan(signal_and_noise(np.zeros((4, 3), np.float32), rng)["signal"])


def test_noise_has_no_signal_and_a_known_mean_is_found():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(400, 50)).astype(np.float32)
    none = signal_and_noise(noise, rng)
    assert none["low"] < 0.002 and abs(none["signal"]) < 0.002
    mean = np.full(50, 0.5, np.float32)  # squared norm 12.5 beside a noise of 50
    some = signal_and_noise(noise + mean, rng)
    assert some["signal"] == pytest.approx(12.5 / 62.5, abs=0.03)
    assert some["snr"] == pytest.approx(10 * 12.5 / 50, abs=0.6)


def test_the_command_measures_a_model_folder(tmp_path, capsys):
    from kit.training import tiny_student

    tiny_student().save(tmp_path / "model")
    main(
        [
            "--student", str(tmp_path / "model"), "--groups", "2", "--siblings", "2", "--max-turns", "2",
            "--max-new-tokens", "3", "--oracle", "2", "--oracle-groups", "1",
            "--out", str(tmp_path / "r.json"),
        ]
    )  # fmt: skip
    result = json.loads((tmp_path / "r.json").read_text())
    assert set(result["rows"]) == set(ROWS) and result["dialogues"] == 4
    table = capsys.readouterr().out
    assert all(f"| {row} |" in table for row in ROWS)
    assert credit_signal.show(result) in table
