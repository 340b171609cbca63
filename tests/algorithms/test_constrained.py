import pytest

from kit.dialogues import advantages, dialogue, group
from steer_env.algorithms.base import make_algorithm

SAFE, HARMFUL = dialogue([1.0, 0.0], [0.0, 0.0]), dialogue([1.0, 1.0], [1.0, 0.0])


def test_advantages_hand_worked():
    # Returns per turn 0.5 and 1: -0.25, 0.25. Mean costs 0 and 0.5: the same.
    free = advantages("constrained_grpo", SAFE, HARMFUL, multiplier_init=0.0, credit="trajectory")
    assert free == [[-0.25, -0.25], [0.25, 0.25]]
    tied = advantages(
        "constrained_grpo", SAFE, HARMFUL, multiplier_init=4.0, rescale=False, credit="trajectory"
    )
    assert tied == [[0.75, 0.75], [-0.75, -0.75]]  # -0.25 + 4 * 0.25
    divided = advantages("constrained_grpo", SAFE, HARMFUL, multiplier_init=4.0, credit="trajectory")
    assert divided == [pytest.approx([0.15, 0.15]), pytest.approx([-0.15, -0.15])]


def test_each_turn_answers_for_its_own_reward_and_cost():
    # Rewards 1 0 and 1 1, costs 0 0 and 1 0.
    tied = advantages("constrained_grpo", SAFE, HARMFUL, multiplier_init=4.0, rescale=False)
    assert tied == [[2.0, -0.5], [-2.0, 0.5]]


@pytest.mark.parametrize("credit", ["trajectory", "own_turn", "discounted", "reward_to_go"])
def test_reward_and_cost_are_on_one_scale_however_long_the_dialogue(credit):
    """Where a turn's cost is its reward, a multiplier of 1 leaves nothing, of 3 the same at any length."""
    for turns in (1, 4, 9):
        pays, does_not = dialogue([1.0] * turns, [1.0] * turns), dialogue([0.0] * turns, [0.0] * turns)
        even = advantages("constrained_grpo", pays, does_not, multiplier_init=1.0, credit=credit)
        assert even == [[0.0] * turns] * 2
        odd = advantages("constrained_grpo", pays, does_not, multiplier_init=3.0, credit=credit)
        # (0.5 - 3 * 0.5) / (1 + 3)
        assert odd == [pytest.approx([-0.25] * turns), pytest.approx([0.25] * turns)]


def test_cost_to_go_hand_worked():
    # Per turn: rewards to go 0.5 0 and 1 1, costs to go 0 0 and 0.5 0: the second turn did no harm.
    result = advantages(
        "constrained_grpo", SAFE, HARMFUL, multiplier_init=4.0, rescale=False, credit="reward_to_go"
    )
    assert result == [[0.75, -0.5], [-0.75, 0.5]]


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
