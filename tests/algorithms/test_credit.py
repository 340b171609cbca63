import doctest

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kit.dialogues import CREDITS, PIECES, advantages, dialogue, group
from steer_env.algorithms import credit
from steer_env.algorithms.advantages import gae, leave_one_out
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.credit import (
    Ledger,
    cost_ledger,
    group_turn_values,
    reward_ledger,
    turn_costs,
    turn_rewards,
    turn_values,
)
from steer_env.trajectory import StopReason, Trajectory


def test_examples_in_docstrings():
    assert doctest.testmod(credit).failed == 0


def test_unscored_turns_have_average_shares_and_no_reward_or_cost_of_their_own():
    lost = dialogue([1.0, None, 0.5], [1.0, 1.0, 0.0])
    assert turn_rewards(lost).tolist() == [1.0, 0.75, 0.5]
    assert np.array_equal(reward_ledger(lost).own_T, [1.0, np.nan, 0.5], equal_nan=True)
    assert np.isnan(turn_rewards(dialogue([None, None]))).all()
    # Costs 1 and 0 over two scored turns: mean 1/2.
    assert np.array_equal(turn_costs(lost), [1.0, np.nan, 0.0], equal_nan=True)
    assert cost_ledger(lost).mean == 0.5 and cost_ledger(lost).shares_T.tolist() == [1.0, 0.5, 0.0]
    assert np.isnan(turn_costs(dialogue([None], [1.0]))).all()
    assert np.isnan(cost_ledger(dialogue([None], [1.0])).mean)


def test_credit_hand_worked():
    good, bad = [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]  # returns 2 and 1
    assert advantages("grpo", good, bad) == [[0.5, -0.5, 0.5], [-0.5, 0.5, -0.5]]
    assert advantages("grpo_paper", good, bad) == [[0.5] * 3, [-0.5] * 3]
    # Deviations +-0.5, each with half of the next and a quarter of the one after that.
    discounted = advantages("grpo", good, bad, credit="discounted", discount=0.5)
    assert discounted == [[0.375, -0.25, 0.5], [-0.375, 0.25, -0.5]]
    # To go: 2 1 1 and 1 1 0.
    assert advantages("grpo", good, bad, credit="reward_to_go") == [[0.5, 0.0, 0.5], [-0.5, 0.0, -0.5]]
    assert advantages("grpo", good, bad, credit="discounted", discount=1.0) == [
        [0.5, 0.0, 0.5],
        [-0.5, 0.0, -0.5],
    ]
    # Divided by the sample deviation 1/sqrt 2 of each turn (plus 1e-4).
    scaled = advantages("grpo", good, bad, credit="turn_normalised")
    assert scaled[0] == pytest.approx([0.5 / (0.5**0.5 + 1e-4), 0.0, 0.5 / (0.5**0.5 + 1e-4)])
    assert advantages("rloo", good, bad, credit="reward_to_go") == [[1.0, 0.0, 1.0], [-1.0, 0.0, -1.0]]


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        # Rewards 1 0 and 1 1, means 1 and 1/2. TCSR of 1 0 with alpha 0.3: 1, 0.35; of 1 1/2: 1, 0.675.
        ("sum", [[0.0, -0.325], [0.0, 0.325]]),
        ("final", [[0.0, -0.325], [0.0, 0.325]]),
        ("mean", [[0.0, -0.1625], [0.0, 0.1625]]),
    ],
)
def test_difference_hand_worked(returns, expected):
    one, two = (dialogue(rewards, returns=returns) for rewards in ([1.0, 0.0], [1.0, 1.0]))
    got = group_turn_values([one, two], "difference").T
    assert got.tolist() == [pytest.approx(row) for row in expected]


def test_what_set_the_minimum_answers_for_it_throughout():
    """A failure in the first of three turns costs the sum more than one in the last."""
    early, late, none = (
        dialogue(rewards, returns="sum") for rewards in ([0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0])
    )
    got = group_turn_values([early, late, none], "difference")
    # Of the first: from 1 + 1 + 1 down to minimum 0 and means 0, 1/2, 2/3 against those of 2/3, 1, 1.
    full = sum(0.3 * 2 / 3 + 0.7 * mean for mean in (2 / 3, 5 / 6, 8 / 9))
    assert got[0, 0] == pytest.approx(sum(0.7 * mean for mean in (0, 1 / 2, 2 / 3)) - full)
    assert got[0, 0] < got[2, 1] < 0


def test_a_turn_that_one_sibling_alone_reaches_has_no_baseline_and_no_advantage():
    long, short = [0.0, 2.0], [1.0]
    assert advantages("grpo", long, short, credit="reward_to_go") == [[0.5, 0.0], [-0.5]]
    assert advantages("grpo", long, short) == [[-0.5, 0.0], [0.5]]
    assert advantages("grpo", long, short, credit="difference") == [[-0.5, 0.0], [0.5]]


# -- against loops written out ---------------------------------------------------------------------------


def declare(rewards, returns, alpha):
    """The declared return of rewards with None where unscored, in plain loops."""
    values, known = [], []
    for reward in rewards:
        if reward is not None:
            known.append(reward)
            values.append(alpha * min(known) + (1 - alpha) * sum(known) / len(known))
    if returns == "plain":
        return len(rewards) * sum(known) / len(known)
    if returns == "final":
        return values[-1]
    return sum(values) / len(values) * (len(rewards) if returns == "sum" else 1)


def by_loops(members, credit, returns, alpha, discount, per_turn):
    """What every turn answers for, member by member; members are (rewards, outside) of any lengths."""
    means, outer = {}, {}
    for t in range(max(len(r) for r, _ in members)):
        known = [r[t] for r, _ in members if t < len(r) and r[t] is not None]
        means[t] = sum(known) / len(known) if known else None
        added = [o[t] for r, o in members if t < len(r) and r[t] is not None]
        outer[t] = sum(added) / len(added) if added else None
    result = []
    for rewards, outside in members:
        count, row = len(rewards), []
        if all(r is None for r in rewards):
            result.append([None] * count)
            continue
        summed = returns in ("sum", "plain")
        total = declare(rewards, returns, alpha) / (count if per_turn and summed else 1)
        total += sum(outside) / (count if per_turn else 1)
        for t in range(count):
            if credit == "trajectory":
                row.append(total)
            elif rewards[t] is None:
                row.append(None)
            elif credit == "own_turn":
                row.append(rewards[t] + outside[t])
            elif credit == "discounted":
                value = weight = 0.0
                for j in range(t, count):
                    own = means[j] + outer[j] if means[j] is not None else 0.0
                    own = own if rewards[j] is None else rewards[j] + outside[j]
                    value, weight = value + discount ** (j - t) * own, weight + discount ** (j - t)
                row.append(value / weight if per_turn else value)
            else:
                other = [means[t] if j == t else rewards[j] for j in range(count)]
                inside = declare(rewards, returns, alpha) - declare(other, returns, alpha)
                added = outside[t] - outer[t]
                if per_turn:
                    inside, added = inside / (count if summed else 1), added / count
                row.append(inside + added)
        result.append(row)
    return result


REWARD = st.one_of(st.none(), st.floats(-1, 1), st.sampled_from([0.0, 0.5, 1.0]))
MEMBER = st.lists(REWARD, min_size=1, max_size=5)
RETURNS = st.sampled_from(["plain", "sum", "final", "mean"])


@given(
    st.lists(st.tuples(MEMBER, st.lists(st.floats(-1, 1), min_size=5, max_size=5)), min_size=1, max_size=4),
    st.sampled_from(["own_turn", "discounted", "difference", "trajectory"]),
    RETURNS,
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
)
def test_credit_is_what_plain_loops_say(drawn, credit, returns, alpha, discount, per_turn):
    # Only around TCSR can anything be told from the reward itself; it adds to scored turns, as wrappers do.
    members = [
        (r, [o if v is not None and returns != "plain" else 0.0 for v, o in zip(r, outside, strict=False)])
        for r, outside in drawn
    ]
    ledgers = [reward_ledger(dialogue(r, returns=returns, alpha=alpha, outside=o)) for r, o in members]
    got = turn_values(ledgers, credit, discount=discount, per_turn=per_turn)
    expected = by_loops(members, credit, returns, alpha, discount, per_turn)
    for column, row in enumerate(expected):
        for turn, value in enumerate(row):
            have = got[0 if credit == "trajectory" else turn, column]
            assert np.isnan(have) if value is None else have == pytest.approx(value, abs=1e-9)


SAME_LENGTH = st.integers(1, 5).flatmap(
    lambda turns: st.lists(st.lists(REWARD, min_size=turns, max_size=turns), min_size=2, max_size=4)
)


@given(SAME_LENGTH, st.sampled_from(CREDITS), RETURNS, st.floats(0, 1), st.floats(-3, 3), st.randoms())
def test_a_constant_for_all_and_the_order_of_siblings_change_nothing(
    members, credit, returns, alpha, constant, random
):
    def found(chosen):
        played = [dialogue(r, returns=returns, alpha=alpha) for r in chosen]
        return [np.array(a) for a in advantages("grpo", *played, credit=credit)]

    # TCSR's first increment carries the level: where it comes later than a sibling's, a constant is in it.
    late = any(member[0] is None for member in members) and returns != "plain"
    assume(not (late and credit in ("reward_to_go", "turn_normalised")))
    plain = found(members)
    shifted = found([[None if r is None else r + constant for r in member] for member in members])
    # Divided by a deviation of rounding errors anything may happen.
    loose = 1e-6 if credit != "turn_normalised" else 1e-3
    for a, b in zip(plain, shifted, strict=True):
        assert a == pytest.approx(b, abs=loose)
    order = list(range(len(members)))
    random.shuffle(order)
    for place, one in zip(order, found([members[k] for k in order]), strict=True):
        assert one == pytest.approx(plain[place], abs=1e-9)


@given(SAME_LENGTH, st.floats(0, 1), RETURNS)
def test_where_credits_coincide(members, alpha, returns):
    ledgers = [reward_ledger(dialogue(r, returns=returns, alpha=alpha)) for r in members]
    own = turn_values(ledgers, "own_turn")
    none_ahead = turn_values(ledgers, "discounted", discount=0.0)
    assert np.array_equal(own, none_ahead, equal_nan=True)
    scored = all(r is not None for member in members for r in member)
    if returns == "plain" and scored:
        undiscounted = turn_values(ledgers, "discounted", discount=1.0)
        assert undiscounted == pytest.approx(turn_values(ledgers, "reward_to_go"))
        difference = turn_values(ledgers, "difference")
        assert difference == pytest.approx(own - own.mean(1, keepdims=True), abs=1e-9)
    if scored:
        to_go, whole = turn_values(ledgers, "reward_to_go"), turn_values(ledgers, "trajectory")
        assert to_go[0] == pytest.approx(whole[0], abs=1e-9)
    if returns == "mean":  # the mean of TCSR's values is the sum per turn
        summed = [reward_ledger(dialogue(r, returns="sum", alpha=alpha)) for r in members]
        per_turn = turn_values(summed, "difference", per_turn=True)
        assert per_turn == pytest.approx(turn_values(ledgers, "difference"), abs=1e-9, nan_ok=True)


@given(st.floats(-1, 1), st.integers(1, 6), st.integers(1, 6), RETURNS, st.sampled_from(CREDITS))
def test_length_does_not_matter_per_turn(reward, short, long, returns, credit):
    ledgers = [reward_ledger(dialogue([reward] * turns, returns=returns)) for turns in (short, long)]
    got = turn_values(ledgers, credit, discount=0.5, per_turn=True)
    defined = got[~np.isnan(got)]
    if credit == "difference":
        assert defined == pytest.approx(0.0, abs=1e-9)
    elif credit in ("own_turn", "discounted", "trajectory") or returns in ("plain", "sum"):
        assert defined == pytest.approx(reward, abs=1e-9)


def test_a_dialogue_that_failed_takes_no_part():
    broken = dialogue([1.0, 1.0])
    broken = Trajectory(broken.scenario, 0, broken.turns, StopReason.FAILED, broken.trace)
    for kind in CREDITS:
        found = advantages("grpo", broken, [1.0, 0.0], [0.0, 0.0], credit=kind)
        others = advantages("grpo", [1.0, 0.0], [0.0, 0.0], credit=kind)
        assert found[0] == [0.0, 0.0] and found[1:] == others


def test_numbers_that_are_nobodys_rewards_do_not_move_the_ledger():
    """Without a rule the emitted rewards are the own ones."""
    ledger = reward_ledger(dialogue([1.0, 0.0]))
    assert isinstance(ledger, Ledger) and ledger.returns == "plain" and ledger.mean == 0.5
    assert ledger.own_T.tolist() == ledger.shares_T.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", ["grpo", "rloo", "reinforce", "constrained_grpo"])
def test_dialogues_without_verdicts_change_nothing_for_their_siblings(name):
    options = {"limit": 0.0} if name == "constrained_grpo" else {}
    members = [dialogue([1.0, 0.5], [0.0, 1.0]), dialogue([0.0, 0.5], [1.0, 1.0])]
    lost = dialogue([None, None])
    assert advantages(name, *members, lost, **options)[:2] == advantages(name, *members, **options)
    assert advantages(name, *members, lost, **options)[2] == [0.0, 0.0]


@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=2, max_size=3),
    st.lists(PIECES, min_size=3, max_size=3),
    st.sampled_from(["grpo", "dr_grpo", "rloo", "reinforce", "constrained_grpo"]),
    st.sampled_from(CREDITS),
)
def test_inserted_observation_tokens_move_no_advantage(rewards, gaps, name, kind):
    def examples(spaces):
        members = []
        for values, space in zip(rewards, spaces, strict=False):
            pieces = [(1 + space[0], -1)]
            for turn in range(3):
                pieces += [(2, turn), (space[turn + 1], -1)]
            members.append(dialogue(values, [1.0, 0.0, 1.0], pieces))
        return make_algorithm(name, credit=kind).examples([group(*members)])

    plain, padded = examples([[0] * 4] * 3), examples(gaps)
    for a, b in zip(plain, padded, strict=True):
        assert np.array_equal(a.advantages_L[a.mask_L], b.advantages_L[b.mask_L])
        assert not b.advantages_L[~b.mask_L].any()
        assert np.array_equal(b.mask_L, b.dialogue.trace.sampled_L)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=6))
def test_leave_one_out_is_the_group_mean_rescaled(values):
    count = len(values)
    factor = count / (count - 1) if count > 1 else 0.0
    centred = np.array(values) - np.mean(values)
    assert np.allclose(leave_one_out([values])[0], factor * centred, atol=1e-9)


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    st.lists(st.floats(-1, 1), min_size=6, max_size=6),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_gae_is_the_sum_of_its_definition(rewards, values, discount, decay):
    values = values[: len(rewards)]
    after = [*values[1:], 0.0]
    errors = [r + discount * n - v for r, n, v in zip(rewards, after, values, strict=True)]
    expected = [
        sum((discount * decay) ** (j - s) * errors[j] for j in range(s, len(errors)))
        for s in range(len(errors))
    ]
    assert np.allclose(gae(rewards, values, discount=discount, trace_decay=decay), expected)
    full = gae(rewards, values, discount=1.0, trace_decay=1.0)
    assert np.allclose(full, np.cumsum(rewards[::-1])[::-1] - values)
