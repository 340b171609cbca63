r"""Credit per turn: what the tokens of a turn answer for.

Arrays: `_T` turns of a dialogue, `_TK` turns and members of a group, NaN where a value is not defined. Three
kinds of numbers: $r_t$ is a turn's *own* reward, as it reaches `TCSR` and with what wrappers around it add;
$R(r_1 \dots r_T)$ the *return* the environment declares ("sum", "final" or "mean" of TCSR's values, the plain
sum without TCSR); $e_t$ the *emitted* reward, the increment of the return, so that $\sum_t e_t = R$. The
algorithm compares what a turn answers for with its siblings' at the same turn. All siblings' turns are
independent of the turn's own reply, so that a baseline of the others is unbiased; a mean with the member in
it shrinks the gradient by (n-1)/n for n siblings at that turn ("rloo" has none of that).

- "own_turn": $r_t$. Every turn is a contextual bandit: the gradient of $\sum_t E[r_t]$ with the distribution
  of histories held fixed. Biased as a gradient of the return: it does not see what a reply does to later
  turns, nor TCSR's minimum. The least noise by far, and right where the reply that is best now is best
  throughout. (MT-GRPO, Zeng et al. 2025, arXiv 2505.11821, turn rewards; GiGPO, Feng et al. 2025, arXiv
  2505.10978, groups within a step.)
- "discounted": $\sum_{j \ge t} \gamma^{j-t} r_j$, with `discount` $\gamma$. 0 is "own_turn", 1 the unbiased
  gradient of the sum of own rewards. In between effects count less the later they come; that is the gradient
  of no objective in general (Nota and Thomas 2020, arXiv 1906.07073), as in GAE (Schulman et al. 2016, arXiv
  1506.02438, sec. 3), where it trades bias for variance.
- "difference": $R(r) - R(r$ with $r_t$ replaced by the siblings' mean $\bar r_t)$: what the turn's own
  reward did to the declared return, all other turns as they were. It knows TCSR exactly: in the
  sum early turns count more, and a turn that set the minimum answers for it. Biased as "own_turn" is: effects
  on later turns' rewards are left out. (Difference rewards, Wolpert and Tumer 2002, "Optimal payoff functions
  for members of collectives"; COMA, Foerster et al. 2018, arXiv 1705.08926, eq. 4.)
- "counterfactual": $\hat V_{t+1} - \hat V_t$, what the reply did to the expected return, by playing the
  dialogue on several times before and after it, at turns where siblings disagree (see `lookahead`). Unbiased
  there, without the noise of how this one dialogue went on, at several times the dialogues.
- "reward_to_go": $\sum_{j \ge t} e_j$. Unbiased for the return, as rewards before the reply do not depend on
  it. Noisy, because it holds the effects of all later replies; more so with the return "final", where each
  $e_j$ takes back part of what came before.
- "turn_normalised": reward to go, divided by the siblings' standard deviation at the same turn index. Late
  turns have less left to differ in, and get the weight of early ones. Dividing changes the objective as in
  GRPO, here per turn: biased, and where the policy ends dialogues the few survivors at a late turn are
  compared among themselves only (the failure reported for per-turn normalisation in verl, issue 7244).
- "trajectory" (SaFeR-Steer, arXiv 2604.16358, Stage III): every turn answers for the whole return. Unbiased,
  but a turn is also credited with what came before it, which it could not change: noise that grows with
  length. A sum over turns also rewards long dialogues where the student can prolong them.

**Length.** Siblings of a group have the seed's length, so that a sum favours no member. Whoever compares
dialogues of several seeds (`reinforce`, `rae`), or adds costs to rewards (`constrained_grpo`), takes
everything per turn (`per_turn`): sums are divided by the turns they run over, values that do not grow with
length ("final", "mean") stay.

**Unscored turns** are masked. They have no own reward, are in nobody's mean, and get no advantage; as a later
turn of "discounted" one is taken to be like its siblings, in a sum over the dialogue like its other turns.
Dialogues that failed take no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_env.algorithms.advantages import trajectory_return
from steer_env.arrays import Floats
from steer_env.rewards import declared_return, tcsr
from steer_env.trajectory import StopReason, Trajectory, TrajectoryGroup

#: Names of the ways to give credit, see above.
CREDITS = (
    "own_turn", "discounted", "difference", "counterfactual", "reward_to_go", "turn_normalised", "trajectory",
)  # fmt: skip
#: Where `lookahead` leaves a turn's effect on the return.
FORKED = "counterfactual"


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """What the turns of one dialogue earned (or cost), and how that adds up to its return.

    Attributes:
        inside_T: Own rewards as they enter the return, NaN where a turn is unscored.
        outside_T: What wrappers around `TCSR` added to the return, turn by turn; 0 without any.
        shares_T: Parts of the return, its increments; they sum to `total`.
        total: The return, NaN if it is undefined.
        returns: "sum", "final" or "mean" of TCSR's values; "plain" for the sum of the rewards themselves, an
            unscored one counting as an average one.
        alpha: TCSR's weight of the minimum.
        effects_T: What each reply did to the expected return, if somebody has looked (see `lookahead`).
    """

    inside_T: Floats
    outside_T: Floats
    shares_T: Floats
    total: float
    returns: str = "plain"
    alpha: float = 0.0
    effects_T: Floats | None = None

    def __len__(self) -> int:
        return len(self.inside_T)

    @property
    def own_T(self) -> Floats:
        """Own reward of each turn, NaN where unscored."""
        return self.inside_T + self.outside_T

    @property
    def grows(self) -> bool:
        """Whether the return is a sum, which grows with the number of turns."""
        return self.returns in ("sum", "plain")

    @property
    def mean(self) -> float:
        """The return per turn, NaN if it is undefined; "final" and "mean" are that already."""
        count = max(len(self), 1)
        if self.grows:
            return self.total / count
        outside = float(self.outside_T.sum())
        return self.total - outside + outside / count

    def declared(self, inside: Floats) -> Floats:
        """Return what rewards in the place of `inside_T` would add up to, (..., T) -> (...)."""
        if self.returns == "plain":
            known = ~np.isnan(inside)
            count = known.sum(-1)
            total = np.where(known, inside, 0.0).sum(-1) * inside.shape[-1]
            return np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return np.asarray(declared_return(tcsr(inside, ~np.isnan(inside), self.alpha), self.returns))


def reward_ledger(trajectory: Trajectory) -> Ledger:
    """Return a dialogue's rewards as a ledger; all NaN where it has no return.

    The own reward of a turn is what reached `TCSR` (`info["turn_reward"]`), or, without it, what was emitted.

    Example:
        >>> from steer_env.scenarios import Scenario, DraftTurn
        >>> from steer_env.types import Scored, Terms, Turn, TurnResult
        >>> def turn(i, reward, own, value):
        ...     info = {"turn_reward": own, "return": value, "return_defined": True}
        ...     info["return_rule"] = ("sum", 0.3)
        ...     return TurnResult(Turn(i, "u", "r", Scored(Terms(5, 5, 5))), reward, info)
        >>> turns = (turn(0, 1.0, 1.0, 1.0), turn(1, 0.35, 0.0, 1.35))
        >>> ledger = reward_ledger(Trajectory(Scenario((DraftTurn("u"),)), 0, turns, StopReason.SEED_END))
        >>> ledger.own_T, ledger.shares_T, ledger.total
        (array([1., 0.]), array([1.  , 0.35]), 1.35)
    """
    shares, total = turn_rewards(trajectory), trajectory_return(trajectory)
    count = len(shares)
    outside = np.zeros(count)
    if np.isnan(total):
        return Ledger(np.full(count, np.nan), outside, shares, total)
    scored = np.array(trajectory.scored)
    infos = [result.info for result in trajectory.turns]
    looked = all(FORKED in info for info in infos)
    effects = np.array([info[FORKED] for info in infos], np.float64) if looked else None
    if "return_rule" not in infos[-1]:
        own = np.where(scored, trajectory.rewards, np.nan)
        return Ledger(own, outside, shares, total, effects_T=effects)
    inside = np.array([info.get("turn_reward", np.nan) for info in infos], np.float64)
    added = shares - np.diff([0.0, *(info["return"] for info in infos)])
    outside = np.where(np.abs(added) > 1e-9, added, 0.0)  # increments of a sum are rounded
    returns, alpha = infos[-1]["return_rule"]
    return Ledger(inside, outside, shares, total, returns, alpha, effects)


def cost_ledger(trajectory: Trajectory) -> Ledger:
    """Return a dialogue's `info["cost"]` as a ledger; its `mean` is the mean cost of scored turns."""
    costs = turn_costs(trajectory)
    known = ~np.isnan(costs)
    mean = float(costs[known].mean()) if known.any() else np.nan
    shares = np.where(known, costs, mean)
    return Ledger(costs, np.zeros(len(costs)), shares, float(shares.sum()) if len(costs) else np.nan)


def turn_rewards(trajectory: Trajectory) -> Floats:
    """Return the emitted rewards, (T,), whose sum is `trajectory_return`; NaN if that is undefined.

    Where TCSR emits increments of a return that masks unscored turns already, they are taken as they are.
    Otherwise an unscored turn counts as an average one.

    Example:
        >>> from steer_env.scenarios import Scenario, DraftTurn
        >>> from steer_env.trajectory import StopReason
        >>> from steer_env.types import Scored, Terms, Turn, TurnResult, Unscored
        >>> good = TurnResult(Turn(0, "u", "r", Scored(Terms(10, 10, 10))), 1.0)
        >>> lost = TurnResult(Turn(1, "u", "r", Unscored("timeout")), 0.0)
        >>> turn_rewards(Trajectory(Scenario((DraftTurn("u"),)), 0, (good, lost), StopReason.SEED_END))
        array([1., 1.])
    """
    rewards = np.array(trajectory.rewards, dtype=np.float64)
    if np.isnan(trajectory_return(trajectory)):
        return np.full_like(rewards, np.nan)
    scored = np.array(trajectory.scored)
    if "return_defined" in trajectory.turns[-1].info or scored.all():
        return rewards
    return np.where(scored, rewards, rewards[scored].mean())


def turn_costs(trajectory: Trajectory) -> Floats:
    """Return `info["cost"]` of each turn, (T,); NaN where a turn is unscored or the dialogue failed."""
    if trajectory.stop == StopReason.FAILED:  # it broke off: what it would have cost is not known
        return np.full(len(trajectory.turns), np.nan)
    known = zip(trajectory.turns, trajectory.scored, strict=True)
    return np.array([r.info.get("cost", np.nan) if scored else np.nan for r, scored in known], np.float64)


def turn_values(
    ledgers: Sequence[Ledger], credit: str, *, discount: float = 0.0, per_turn: bool = False
) -> Floats:
    """Return what each turn of each member answers for, (T, K); (1, K) where all turns answer for the same.

    Args:
        ledgers: The members' ledgers.
        credit: One of `CREDITS`.
        discount: Discount of "discounted", in [0, 1].
        per_turn: Divide sums by the turns they run over, so that dialogues of different lengths compare.

    Raises:
        ValueError: If "counterfactual" is asked for where nobody has played the dialogues on.

    Example:
        Two dialogues of two turns with a plain sum.

        >>> zeros = np.zeros(2)
        >>> a, b = (Ledger(np.array(r), zeros, np.array(r), sum(r)) for r in ([1.0, 0.0], [0.0, 1.0]))
        >>> turn_values([a, b], "trajectory")
        array([[1., 1.]])
        >>> turn_values([a, b], "own_turn")
        array([[1., 0.],
               [0., 1.]])
        >>> turn_values([a, b], "difference")
        array([[ 0.5, -0.5],
               [-0.5,  0.5]])
        >>> turn_values([a, b], "discounted", discount=0.5)
        array([[1. , 0.5],
               [0. , 1. ]])
    """
    if credit == "trajectory":
        return np.array([[ledger.mean if per_turn else ledger.total for ledger in ledgers]])
    if credit == "own_turn":
        return _table([ledger.own_T for ledger in ledgers])
    if credit == "discounted":
        return _discounted(_table([ledger.own_T for ledger in ledgers]), ledgers, discount, per_turn)
    if credit == "counterfactual":
        return _table([_effects(ledger) for ledger in ledgers])
    if credit == "difference":
        return _difference(ledgers, per_turn)
    return _table([_to_go(ledger, per_turn) for ledger in ledgers])


def _effects(ledger: Ledger) -> Floats:
    """Return what each reply did, (T,); NaN where the turn is unscored or the dialogue has no return."""
    if np.isnan(ledger.total):
        return np.full(len(ledger), np.nan)
    if ledger.effects_T is None:
        raise ValueError(
            f"credit='counterfactual' of a dialogue without info[{FORKED!r}], expected one that was played "
            "on; train with steer_env.algorithms.trainer, or call lookahead.look_ahead first"
        )
    return np.where(np.isnan(ledger.own_T), np.nan, ledger.effects_T)


def _to_go(ledger: Ledger, per_turn: bool) -> Floats:
    """Return what is emitted from each turn on, (T,)."""
    if not per_turn:
        return _sums_from(ledger.shares_T)
    left = np.arange(len(ledger), 0, -1)
    if ledger.grows:
        return _sums_from(ledger.shares_T) / left
    return _sums_from(ledger.shares_T - ledger.outside_T) + _sums_from(ledger.outside_T) / left


def _discounted(own_TK: Floats, ledgers: Sequence[Ledger], discount: float, per_turn: bool) -> Floats:
    mean_T = _row_means(own_TK)
    result = np.full_like(own_TK, np.nan)
    for column, ledger in enumerate(ledgers):
        ahead = weight = 0.0
        for turn in range(len(ledger) - 1, -1, -1):
            own = own_TK[turn, column]
            like_siblings = np.nan_to_num(mean_T[turn])  # nobody has a reward: any number, the same for all
            ahead = (like_siblings if np.isnan(own) else own) + discount * ahead
            weight = 1.0 + discount * weight
            if not np.isnan(own):
                result[turn, column] = ahead / weight if per_turn else ahead
    return result


def _difference(ledgers: Sequence[Ledger], per_turn: bool) -> Floats:
    inside_T = _row_means(_table([ledger.inside_T for ledger in ledgers]))
    known_TK = ~np.isnan(_table([ledger.inside_T for ledger in ledgers]))
    outside_TK = _table([ledger.outside_T for ledger in ledgers])
    outside_T = _row_means(np.where(known_TK, outside_TK, np.nan))
    result = np.full(known_TK.shape, np.nan)
    for column, ledger in enumerate(ledgers):
        count = len(ledger)
        scored = known_TK[:count, column]
        if not scored.any():
            continue
        # Row t holds the dialogue's rewards with the one of turn t replaced.
        replaced_TT = np.where(np.eye(count, dtype=bool), inside_T[:count], ledger.inside_T)
        replaced_TT = np.where(scored, replaced_TT, np.nan)
        inside = ledger.declared(ledger.inside_T) - ledger.declared(replaced_TT)
        outside = ledger.outside_T - outside_T[:count]
        if per_turn:
            inside, outside = inside / (count if ledger.grows else 1), outside / count
        result[:count, column] = np.where(scored, inside + outside, np.nan)
    return result


def _table(columns: Sequence[Floats]) -> Floats:
    """Put arrays (T_k,) side by side, (T, K); NaN where one has ended."""
    result = np.full((max(map(len, columns), default=0), len(columns)), np.nan)
    for index, values in enumerate(columns):
        result[: len(values), index] = values
    return result


def _row_means(table_TK: Floats) -> Floats:
    """Return the mean of each row's defined values, NaN where there are none."""
    defined = ~np.isnan(table_TK)
    total, count = np.where(defined, table_TK, 0.0).sum(1), defined.sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _sums_from(values_T: Floats) -> Floats:
    return np.asarray(np.cumsum(values_T[::-1])[::-1])


def group_turn_values(
    group: TrajectoryGroup | Sequence[Trajectory], credit: str, *, discount: float = 0.0
) -> Floats:
    """Return `turn_values` of the rewards of a group, or of some dialogues taken for one."""
    members = group.trajectories if isinstance(group, TrajectoryGroup) else group
    return turn_values([reward_ledger(t) for t in members], credit, discount=discount)


def split(advantages_TK: NDArray[np.floating[Any]], members: Sequence[Trajectory]) -> list[Floats]:
    """Return each member's advantages by turn, (T_k,), from those of its group, (T, K) or (1, K)."""
    columns = np.asarray(advantages_TK, dtype=np.float64).T
    return [
        np.full(len(t.turns), column[0]) if len(column) == 1 else column[: len(t.turns)]
        for t, column in zip(members, columns, strict=True)
    ]
