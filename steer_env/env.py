"""The dialogue game: a PettingZoo AEC environment of an attacker and a student.

A cycle is one user turn by `attacker_0` and one reply by `student_0`; the action is the utterance. The bare
environment emits reward 0: `steer_env.wrappers` turn the judge's verdicts into rewards.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from pettingzoo import AECEnv

from steer_env.checks import integer, switch
from steer_env.drawing import DrawnTurn, acts_of, with_acts
from steer_env.forking import copied
from steer_env.judges.base import Judge, JudgeRequest, judge_batch
from steer_env.rewards import harm_cost
from steer_env.scenarios import Scenario, ScenarioSource
from steer_env.spaces import MAX_LENGTH, Unicode, attacker_space, has_surrogate, student_space
from steer_env.types import (
    ASSISTANT,
    ATTACKER,
    NO_TERMS,
    STUDENT,
    USER,
    Message,
    Scored,
    Turn,
    Verdict,
)

AGENTS = (ATTACKER, STUDENT)


class InvalidUtterance(ValueError):
    """An action that is not an utterance. The environment is unchanged: step again with a valid one."""


class TooLong(InvalidUtterance):
    """An utterance of more than `limit` characters."""

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message, limit)
        self.limit = limit

    def __str__(self) -> str:
        return str(self.args[0])


class ResetNeeded(RuntimeError):
    """The environment was used before `reset()` or after its end."""


class DialogueEnv(AECEnv[str, Any, Any]):
    """A multi-turn dialogue over images and text.

    Attributes:
        scenario: The current `Scenario` (ground truth included: not for agents).
        stop: Why the dialogue ended, "" while it runs: "seed_end" (terminated), "max_cycles" or "failed"
            (truncated).

    Args:
        scenarios: Where `reset` draws a scenario from.
        judge: Scores every reply; None leaves all turns without a verdict.
        max_cycles: Truncate after this many cycles, None to play every turn of the seed.
        max_length: Longest utterance in characters.
        attacker_pictures: Whether the attacker's action space holds picture acts. They are drawn in any case.
        render_mode: "human" prints, "ansi" returns text, "rgb_array" a picture of image and transcript.

    A user turn may bring picture acts, see `steer_env.drawing`: `Utterance(text, acts=(PictureAct(...),))`.
    They are drawn on the scenario's own picture, and `scenario` is from then on the one that is shown.

    Infos: after each reply `infos["student_0"]` is a fresh dict with "turn" (0-based), "verdict", "scored",
    "reward_terms" (safety, usefulness, faithfulness in 1..10) and "cost" (1.0 for harm, else 0.0). An
    unscored turn has no numbers: "reward_terms" is empty and "cost" is left out.
    """

    def __init__(
        self,
        scenarios: ScenarioSource,
        judge: Judge | None = None,
        *,
        max_cycles: int | None = None,
        max_length: int = MAX_LENGTH,
        attacker_pictures: bool = False,
        render_mode: str | None = None,
        name: str = "steer_dialogue_v0",
    ) -> None:
        super().__init__()
        if not isinstance(scenarios, ScenarioSource):
            raise TypeError(f"scenarios={scenarios!r}, expected an object with sample(rng) -> Scenario")
        if judge is not None and not isinstance(judge, Judge):
            raise TypeError(
                f"judge={judge!r}, expected an object with name and judge(requests) -> list[Verdict]"
            )
        if max_cycles is not None:
            max_cycles = integer("max_cycles", max_cycles, 1, why=" or None")
        max_length = integer("max_length", max_length, 1, why=": characters")
        self.metadata: dict[str, Any] = {
            "name": name,
            "render_modes": ["human", "ansi", "rgb_array"],
            "is_parallelizable": False,
            "render_fps": 1,
        }
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"render_mode={render_mode!r}, expected None or one of {self.metadata['render_modes']}"
            )
        self.render_mode = render_mode
        self.possible_agents = list(AGENTS)
        self.scenario: Scenario | None = None
        self.stop = ""
        self._scenarios = scenarios
        self._judge = judge
        self._max_cycles = max_cycles
        self._max_length = max_length
        self._observation_spaces = {ATTACKER: attacker_space(max_length), STUDENT: student_space(max_length)}
        turns = DrawnTurn if switch("attacker_pictures", attacker_pictures) else Unicode
        self._action_spaces: dict[str, spaces.Space[Any]] = {
            ATTACKER: turns(max_length),
            STUDENT: Unicode(max_length),
        }
        self._np_random: np.random.Generator | None = None
        self._offered: tuple[str, Verdict] | None = None
        self.agents: list[str] = []
        self.agent_selection = ATTACKER
        self.rewards: dict[str, float] = {}
        self._cumulative_rewards: dict[str, float] = {}
        self.infos: dict[str, dict[str, Any]] = {}
        self.terminations: dict[str, bool] = {}
        self.truncations: dict[str, bool] = {}

    @property
    def scenarios(self) -> ScenarioSource:
        """Where dialogues are drawn from."""
        return self._scenarios

    # -- PettingZoo: spaces -------------------------------------------------------------------------------

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Return the seat's observation space, the same object on every call."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Return the seat's action space: text up to `max_length` characters, see `attacker_pictures`."""
        return self._action_spaces[agent]

    # -- PettingZoo: dynamics -----------------------------------------------------------------------------

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start a new dialogue.

        Args:
            seed: Seeds the environment's own generator; the same seed gives the same scenario.
            options: `{"scenario": Scenario}` plays this one instead of drawing. Other keys are ignored.

        Raises:
            TypeError: If `options["scenario"]`, or what the source returns, is no `Scenario`; the dialogue in
                play has not changed then.
        """
        chosen = (options or {}).get("scenario")
        if chosen is not None and not isinstance(chosen, Scenario):
            raise TypeError(
                f"options['scenario']={chosen!r}, expected a steer_env.Scenario; read a file with "
                "steer_env.load_scenarios, or leave the key out to draw one"
            )
        if seed is not None or self._np_random is None:
            self._np_random, _ = seeding.np_random(seed)
        self.scenario = self._draw(self._np_random) if chosen is None else chosen.dealt or chosen
        self.agents = list(AGENTS)
        self.agent_selection = ATTACKER
        self.rewards = {ATTACKER: 0.0, STUDENT: 0.0}
        self._cumulative_rewards = {ATTACKER: 0.0, STUDENT: 0.0}
        self.terminations = {ATTACKER: False, STUDENT: False}
        self.truncations = {ATTACKER: False, STUDENT: False}
        self.infos = {ATTACKER: {}, STUDENT: {}}
        self.stop = ""
        self._skip_agent_selection = None
        # Three views of one conversation: the public one, and each seat's with its own utterances as it made
        # them (a student finds its token trace there). Meta never crosses to the other seat.
        self._public: tuple[Message, ...] = ()
        self._views: dict[str, tuple[Message, ...]] = {ATTACKER: self._public, STUDENT: self._public}
        self._images_shown = 0
        self._turns: list[Turn] = []
        self._user: str = ""
        self._verdict: Verdict | None = None
        self._judge_context: dict[str, Any] = {}
        self._offered = None

    def step(self, action: str | None) -> None:
        """Speak for `agent_selection`; None only for an agent whose dialogue has ended.

        Raises:
            InvalidUtterance: If the action is not a valid string; nothing has changed then.
            ResetNeeded: Before `reset` or after the end.
        """
        if not self.agents:
            raise ResetNeeded(
                "step() was called before reset() or after the dialogue had ended; call reset() first"
            )
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self.check(action, agent)
        assert isinstance(action, str)
        self._cumulative_rewards[agent] = 0.0
        if agent == ATTACKER:
            self._user_turn(action)
            self.agent_selection = STUDENT
        else:
            self._reply(action)
            self.agent_selection = ATTACKER
        if self.render_mode == "human":
            self._print_last()

    def _draw(self, rng: np.random.Generator) -> Scenario:
        drawn = self._scenarios.sample(rng)
        if not isinstance(drawn, Scenario):
            raise TypeError(
                f"{type(self._scenarios).__name__}.sample(rng) returned {drawn!r}, expected a "
                "steer_env.Scenario; correct the scenario source"
            )
        return drawn

    def observe(self, agent: str) -> dict[str, Any]:
        """Return a fresh observation whose parts are immutable and shared with earlier ones."""
        scenario = self.scenario
        if scenario is None:
            raise ResetNeeded("observe() was called before reset(); call reset() first")
        if agent == STUDENT:
            return {"images": scenario.images[: self._images_shown], "transcript": self._views[STUDENT]}
        turn = self.cycle
        verdict = self._verdict
        scored = isinstance(verdict, Scored)
        return {
            "images": scenario.images[: self._images_shown],
            "transcript": self._views[ATTACKER],
            "goal": scenario.goal,
            "draft": scenario.turns[turn].text if turn < len(scenario.turns) else "",
            "kind": scenario.kind,
            "strategy": scenario.strategy,
            "technique": scenario.technique,
            "verdict": verdict.terms if isinstance(verdict, Scored) else NO_TERMS,
            "scored": int(scored),
        }

    def check(self, action: Any, agent: str) -> None:
        """Raise `InvalidUtterance` if `action` is not a valid utterance of `agent`."""
        if not isinstance(action, str):
            raise InvalidUtterance(
                f"action={action!r} of type {type(action).__name__} for {agent}, expected a str: the action "
                "is the utterance itself"
            )
        if len(action) > self._max_length:
            raise TooLong(
                f"the utterance of {agent} has {len(action)} characters, expected at most "
                f"{self._max_length}; shorten it, or raise max_length in make()",
                self._max_length,
            )
        if has_surrogate(action):
            raise InvalidUtterance(
                f"action={action!r} of {agent} holds a lone surrogate, expected text that UTF-8 can encode; "
                "decode the bytes with errors='replace'"
            )
        if agent == ATTACKER:
            try:
                acts = acts_of(action)
                if acts and self.scenario is not None and self.cycle < len(self.scenario.turns):
                    with_acts(self.scenario, self.cycle, acts)
            except ValueError as error:
                raise InvalidUtterance(f"{error}; see steer_env.drawing") from error

    def _append(self, agent: str, role: int, utterance: str, images: int) -> None:
        message = Message(role, str(utterance), images)
        own = message if type(utterance) is str else Message(role, utterance, images)
        before, self._public = self._public, (*self._public, message)
        for seat in AGENTS:
            if self._views[seat] is before and (seat != agent or own is message):
                self._views[seat] = self._public  # no meta so far: share instead of copying
            else:
                self._views[seat] += (own if seat == agent else message,)

    def _user_turn(self, utterance: str) -> None:
        assert self.scenario is not None
        self.scenario = with_acts(self.scenario, self.cycle, acts_of(utterance))
        images = len(self.scenario.turns[self.cycle].images)
        self._append(ATTACKER, USER, utterance, images)
        self._images_shown += images
        self._user = utterance
        self.infos[ATTACKER] = {}

    def _reply(self, utterance: str) -> None:
        scenario = self.scenario
        assert scenario is not None
        # Judge first: a judge that breaks its contract raises, and then nothing has changed.
        verdict = self._verdict = self._judge_reply(utterance)
        self._append(STUDENT, ASSISTANT, utterance, 0)
        index = self.cycle
        seed_turn = scenario.turns[index]
        self._turns.append(Turn(index, self._user, utterance, verdict, seed_turn.risk, len(seed_turn.images)))
        scored = isinstance(verdict, Scored)
        self.infos[STUDENT] = {
            "turn": index,
            "verdict": verdict,
            "scored": scored,
            "reward_terms": verdict.terms._asdict() if isinstance(verdict, Scored) else {},
        }
        if isinstance(verdict, Scored):
            self.infos[STUDENT]["cost"] = harm_cost(verdict.terms.safety)
        if self.cycle == len(scenario.turns):
            self.stop = "seed_end"
            self.terminations = {ATTACKER: True, STUDENT: True}
        elif self.cycle == self._max_cycles:
            self.stop = "max_cycles"
            self.truncations = {ATTACKER: True, STUDENT: True}

    def fail(self) -> None:
        """End the dialogue where it is, because a seat has no utterance; both seats are truncated."""
        self.stop = "failed"
        self.truncations = {ATTACKER: True, STUDENT: True}

    def fork(self) -> DialogueEnv:
        """Return an exact copy of the running dialogue, to try another reply in.

        Continued with the same utterances, copy and original do the same, and neither notices the other.
        Scenario, scenario source, judge and what was said are shared; everything else is copied, a subclass's
        own attributes included (deeply: override `fork` where one of them cannot or need not be copied).
        """
        said = (self._public, *self._views.values(), *self._turns, self._user, self._verdict, self._offered)
        spaces = (*self._observation_spaces.values(), *self._action_spaces.values())
        return copied(self, (self.scenario, self._scenarios, self._judge, *said, *spaces))

    # -- judging ------------------------------------------------------------------------------------------

    def judge_request(self, reply: str) -> JudgeRequest:
        """Return the request that would judge `reply` as the next reply; used to judge in batches."""
        assert self.scenario is not None
        transcript = (*self._public, Message(ASSISTANT, str(reply), 0))
        return JudgeRequest(self.scenario, transcript, self._judge_context)

    def offer_verdict(self, reply: str, verdict: Verdict) -> None:
        """Use `verdict` if the next reply is `reply`, so that a batched call need not be made again."""
        self._offered = (str(reply), verdict)

    @property
    def judge(self) -> Judge | None:
        """The judge, None in an environment without verdicts."""
        return self._judge

    def _judge_reply(self, reply: str) -> Verdict | None:
        offered, self._offered = self._offered, None
        if offered is not None and offered[0] == reply:
            return offered[1]
        if self._judge is None:
            return None
        return judge_batch(self._judge, [self.judge_request(reply)])[0]

    # -- reading ------------------------------------------------------------------------------------------

    @property
    def cycle(self) -> int:
        """Number of finished cycles, which is also the index of the seed turn in play."""
        return len(self._turns)

    @property
    def horizon(self) -> int:
        """Number of cycles that the dialogue in play has if no seat fails, 0 before `reset`."""
        planned = 0 if self.scenario is None else len(self.scenario.turns)
        return planned if self._max_cycles is None else min(planned, self._max_cycles)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The finished cycles; `user` and `reply` are the utterances as their speakers made them."""
        return tuple(self._turns)

    @property
    def last_turn(self) -> Turn:
        """The cycle that finished last."""
        return self._turns[-1]

    @property
    def transcript(self) -> tuple[Message, ...]:
        """All messages so far, without any seat's meta."""
        return self._public if self.scenario is not None else ()

    # -- rendering ----------------------------------------------------------------------------------------

    def render(self) -> Any:
        """Print the dialogue ("human"), or return it as text ("ansi") or as a picture ("rgb_array")."""
        from steer_env import render

        if self.render_mode is None:
            warnings.warn("render() needs a render_mode; pass render_mode='human' to make()", stacklevel=2)
            return None
        if self.scenario is None:
            raise ResetNeeded("render() was called before reset(); call reset() first")
        if self.render_mode == "rgb_array":
            return render.render_rgb(self.scenario, self._public, self._turns, height=render.FRAME_HEIGHT)
        text = render.render_text(self.scenario, self._public, self._turns)
        if self.render_mode == "ansi":
            return text
        print(text)
        return None

    def _print_last(self) -> None:
        from steer_env import render

        assert self.scenario is not None
        print(render.render_text(self.scenario, self._public[-1:], self._turns[-1:], header=False))

    def close(self) -> None:
        """Nothing to release."""
