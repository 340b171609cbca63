import pytest

from steer_env.algorithms.base import make_algorithm

from .test_credit import advantages, dialogue, group

SAFE, HARMFUL = dialogue([1.0, 0.0], [0.0, 0.0]), dialogue([1.0, 1.0], [1.0, 0.0])


def test_advantages_hand_worked():
    # Returns 1 and 2: -0.5, 0.5. Mean costs 0 and 0.5: -0.25, 0.25.
    free = advantages("constrained_grpo", SAFE, HARMFUL, multiplier_init=0.0)
    assert free == [[-0.5, -0.5], [0.5, 0.5]]
    tied = advantages("constrained_grpo", SAFE, HARMFUL, multiplier_init=4.0, rescale=False)
    assert tied == [[0.5, 0.5], [-0.5, -0.5]]  # 0.5 - 4 * 0.25
    assert advantages("constrained_grpo", SAFE, HARMFUL, multiplier_init=4.0) == [[0.1, 0.1], [-0.1, -0.1]]


def test_cost_to_go_hand_worked():
    # Rewards to go 1 0 and 2 1, costs to go 0 0 and 0.5 0: the second turn did no harm.
    result = advantages(
        "constrained_grpo", SAFE, HARMFUL, multiplier_init=4.0, rescale=False, credit="reward_to_go"
    )
    assert result == [[0.5, -0.5], [-0.5, 0.5]]


def test_dual_ascent_hand_worked():
    algorithm = make_algorithm("constrained_grpo", limit=0.1, multiplier_init=0.5, multiplier_lr=2.0)
    harmful, safe = [group(HARMFUL, HARMFUL)], [group(SAFE, SAFE)]
    assert algorithm.finish(harmful) == {"multiplier": 0.5, "dialogue_cost": 0.5}
    assert algorithm.multiplier == pytest.approx(0.5 + 2 * 0.4)
    for _ in range(10):
        algorithm.finish(safe)
    assert algorithm.multiplier == 0.0  # never below
    capped = make_algorithm("constrained_grpo", multiplier_max=1.0, limit=0.0, multiplier_lr=9.0)
    capped.finish(harmful)
    assert capped.multiplier == 1.0


def test_unscored_turns_move_neither_cost_nor_multiplier():
    lost = dialogue([1.0, None], [1.0, 1.0])
    algorithm = make_algorithm("constrained_grpo", limit=0.5, multiplier_lr=1.0)
    assert algorithm.finish([group(lost, SAFE)])["dialogue_cost"] == 0.5  # mean of 1 over one turn, and 0
    assert algorithm.multiplier == 1.0
    assert algorithm.finish([group([None], [None])]) == {"multiplier": 1.0, "dialogue_cost": None}
    assert algorithm.multiplier == 1.0


def test_the_multiplier_is_in_the_state():
    algorithm = make_algorithm("constrained_grpo")
    algorithm.finish([group(HARMFUL, SAFE)])
    other = make_algorithm("constrained_grpo")
    other.load_state_dict(algorithm.state_dict())
    assert other.multiplier == algorithm.multiplier == pytest.approx(1.2)
    assert "multiplier" not in algorithm.options()
