"""Opponents for one seat: the newest one and a pool of past and fixed ones.

A league is an agent. Which member plays a dialogue depends on the league's seed, its step and the dialogue's
reset seed, so the members of a group meet the same opponent and are compared fairly. It is taught after every
step, as any agent with a memory is: then it counts who won and passes the dialogues on to members that learn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from steer_env.agents.base import Acts, Agent, Failed, Observation, as_agent, stream_of
from steer_env.algorithms.attack import harmed
from steer_env.algorithms.learners import derive
from steer_env.checks import check_choice, check_integers, check_numbers
from steer_env.trajectory import Trajectory
from steer_env.types import ATTACKER, STUDENT, Utterance

#: How past opponents are drawn, see `League`.
SAMPLING = ("uniform", "pfsp")


class League(Agent):
    r"""Plays one seat with many members.

    With probability `share` a dialogue's opponent is drawn from the pool (all but the newest), else it is the
    newest. "uniform" draws all alike (fictitious self-play, Heinrich et al. 2015); "pfsp" draws a member with
    weight $w^p$, $w$ the rate at which it beats the policy in training (prioritised fictitious self-play,
    Vinyals et al. 2019, AlphaStar, $f_{hard}$). An attacker beats a student by harm in a risky dialogue; a
    student beats an attacker by answering one without. $w = (wins + 1) / (games + 2)$.

    Attributes:
        counts: [wins, losses] of each member against the policy in training, fading by `decay` a step.

    Args:
        seat: The seat it plays, "attacker_0" or "student_0".
        newest: Name of the newest member.
        playing: Members that are at hand, and learn if they have `learn`; their memories are in the state.
        frozen: Members that are made when they are first drawn, and never learn.
        share: Probability of an opponent from the pool, in [0, 1].
        sampling: "uniform" or "pfsp".
        power: $p$ of "pfsp".
        decay: Factor on old counts at every step, in [0, 1].
        seed: Decides who plays.
        loaded: Most frozen members kept in memory between steps.

    Raises:
        ValueError: If `newest` is no member, a name occurs twice, or a number is out of its range.
    """

    def __init__(
        self,
        seat: str,
        newest: str,
        playing: Mapping[str, Acts],
        frozen: Mapping[str, Callable[[], Acts]] | None = None,
        *,
        share: float = 0.5,
        sampling: str = "pfsp",
        power: float = 1.0,
        decay: float = 0.95,
        seed: int = 0,
        loaded: int = 4,
    ) -> None:
        self.seat, self.newest, self.share, self.sampling = seat, newest, share, sampling
        self.power, self.decay, self.seed, self.loaded = power, decay, seed, loaded
        check_choice(self, "seat", (ATTACKER, STUDENT))
        check_choice(self, "sampling", SAMPLING)
        check_numbers(self, ("share", "decay"), 0, 1)
        check_numbers(self, ("power",))
        check_integers(self, ("loaded",), 1)
        self._playing = {name: as_agent(agent) for name, agent in playing.items()}
        self._frozen = dict(frozen or {})
        twice = sorted(set(self._playing) & set(self._frozen))
        if twice or newest not in self.members:
            raise ValueError(
                f"newest={newest!r}, members={self.members!r}, expected different names with the newest "
                "among them"
            )
        self.counts = {name: [0.0, 0.0] for name in self.members}
        self.step = 0
        self._loaded: OrderedDict[str, Agent] = OrderedDict()
        self._refresh()

    @property
    def members(self) -> list[str]:
        """All names."""
        return [*self._playing, *self._frozen]

    def weights(self) -> dict[str, float]:
        """Return the probability of each pool member, given that the pool plays; {} without a pool."""
        pool = [name for name in self.members if name != self.newest]
        rates = [(self.counts[n][0] + 1) / (sum(self.counts[n]) + 2) for n in pool]
        weight = np.array(rates) ** self.power if self.sampling == "pfsp" else np.ones(len(pool))
        return dict(zip(pool, (weight / max(weight.sum(), 1e-12)).tolist(), strict=True))

    def member_for(self, seed: str) -> str:
        """Return who plays the dialogues of a reset seed in this step; the newest where nobody names it."""
        weights = self.weights()
        if not seed or not weights:
            return self.newest
        words = [self.seed, self.step, *seed.encode()]
        rng = np.random.default_rng(words)
        if rng.random() >= self.share:
            return self.newest
        return str(rng.choice(list(weights), p=list(weights.values())))

    def act(self, observations: Sequence[Observation]) -> list[Utterance | Failed]:
        """Let each dialogue's member answer, members in batches."""
        names = [self.member_for(stream_of(o).rpartition(".")[0]) for o in observations]
        said: list[Any] = [None] * len(names)
        for name in dict.fromkeys(names):
            places = [i for i, own in enumerate(names) if own == name]
            answers = self._agent(name).act([observations[i] for i in places])
            for i, answer in zip(places, answers, strict=True):
                said[i] = answer
        return said

    def learn(self, trajectories: Sequence[Trajectory]) -> None:
        """Count wins, teach members that learn with what they played, and go on to the next step."""
        played: dict[str, list[Trajectory]] = {name: [] for name in self.members}
        for trajectory in trajectories:
            played[self.member_for(str(trajectory.seed))].append(trajectory)
        for name, own in played.items():
            counts = self.counts[name] = [c * self.decay for c in self.counts[name]]
            for outcome in map(harmed, own):
                if outcome is not None:
                    counts[0 if outcome == (self.seat == ATTACKER) else 1] += 1.0
            if name in self._playing:
                self._playing[name].learn(own)
        self.step += 1
        # Never within a step: a member that is loaded again would repeat its draws.
        while len(self._loaded) > self.loaded:
            self._loaded.popitem(last=False)
        self._refresh()

    def state_dict(self) -> dict[str, Any]:
        """Return counts, the step, and the memories of members that have one."""
        own = {n: state for n, a in self._playing.items() if (state := a.state_dict())}
        return {"step": self.step, "counts": {n: list(c) for n, c in self.counts.items()}, "members": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned; members unknown to it start from nothing."""
        self.step = int(state["step"])
        for name, counts in state["counts"].items():
            if name in self.counts:
                self.counts[name] = [float(c) for c in counts]
        for name, own in state["members"].items():
            if name in self._playing:
                self._playing[name].load_state_dict(own)
        self._refresh()

    def inherit(self, counts: Mapping[str, Sequence[float]]) -> None:
        """Take over the counts of an earlier league for members of the same name."""
        for name in self.members:
            if name in counts:
                self.counts[name] = [float(c) for c in counts[name]]

    def _agent(self, name: str) -> Agent:
        if name in self._playing:
            return self._playing[name]
        if name not in self._loaded:
            self._loaded[name] = as_agent(self._frozen[name]())
            self._reseed(name, self._loaded[name])
        self._loaded.move_to_end(name)
        return self._loaded[name]

    def _refresh(self) -> None:
        """Restart the members' random streams."""
        for name, agent in {**self._playing, **self._loaded}.items():
            self._reseed(name, agent)

    def _reseed(self, name: str, agent: Agent) -> None:
        agent.weights_changed()
        agent.reseed(derive(self.seed, self.step, *name.encode()))
