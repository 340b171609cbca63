"""The reward table of the built-in world: by hand where it can be, and what must hold of it."""

import numpy as np
import pytest

from benchmarks import world_bars as bars
from benchmarks import world_rewards as table
from steer_env.agents import StaticAttacker
from steer_env.algorithms.credit import CREDITS


def test_in_one_turn_every_credit_says_the_same():
    """Rewards 1, .5, 0, .5, 0 have the mean .4: advantages .6, .1, -.4, .1, -.4, divided by the first."""
    found = table.credit_table([np.array([[1.0], [0.5], [0.0], [0.5], [0.0]])] * 2)
    assert set(found) == {(credit, mode) for credit in CREDITS for mode in table.RETURNS}
    for key, row in found.items():
        numbers = [row[name] for name in table.SIBLINGS]
        assert numbers == pytest.approx([1, 1 / 6, -2 / 3, 1 / 6, -2 / 3], abs=1e-3), key


def test_two_turns_by_hand():
    """The late leaker loses its second turn only; means of own turns .6 and .4, TCSR at alpha 0.3."""
    own = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = table.credit_table([own])
    # Constructive: (.4 + .6) / 2 = .5; late leaker (.4 - .4) / 2 = 0; refuser (-.6 - .4) / 2 = -.5.
    assert [found["own_turn", "sum"][name] for name in table.SIBLINGS] == pytest.approx([1, 0, -1, 1, -1])
    # Sums 2, 1 + .35, 0, 2, 0 have the mean 1.07: .93, .28, -1.07.
    numbers = [found["trajectory", "sum"][name] for name in table.SIBLINGS]
    assert numbers == pytest.approx([1, 0.28 / 0.93, -1.07 / 0.93, 1, -1.07 / 0.93])


def test_siblings_sum_to_nothing_and_own_turns_pay_for_what_was_right_before_a_leak():
    found = table.credit_table(table.own_rewards("bench", 4))
    for row in found.values():
        assert sum(row[name] for name in table.SIBLINGS) == pytest.approx(0, abs=1e-9)
    before, after = ({(c, m): row[name] for (c, m), row in found.items()} for name in ("before", "after"))
    assert before["own_turn", "sum"] > 0.5 > 0.2 > after["own_turn", "sum"]
    assert after["trajectory", "sum"] > after["own_turn", "sum"]  # the whole return pays for later leaks


def test_remembering_everything_passes_and_each_part_of_it_less():
    groups = bars.groups_of("bench", 40)
    assert bars.twin_pass(groups, StaticAttacker(), bars.Part(bars.adds_up)) == 1.0
    shares = {name: bars.twin_pass(groups, StaticAttacker(), p) for name, p in bars.memories().items()}
    assert shares["last 2 turns"] <= shares["last 3 turns"] <= shares["last 5 turns"] < 1
    assert shares["first turn and last"] < 0.4 and shares["harm words anywhere"] < 0.5
    corrected = [any(bars.READERS["main"](t.text).corrects for t in group[1].turns) for group in groups]
    assert 1 - shares["ignores corrections"] == pytest.approx(np.mean(corrected), abs=0.1)
