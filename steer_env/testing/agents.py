"""Checks for agents of either seat and for judges."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from steer_env.agents.base import AsyncAgent, Failed
from steer_env.judges.base import AsyncJudge, JudgeRequest, read_verdict
from steer_env.rollout import rollout
from steer_env.scenarios import Scenario
from steer_env.spaces import Unicode
from steer_env.testing.envs import check_env
from steer_env.testing.play import global_random_untouched
from steer_env.testing.toys import ToyAttacker, ToyStudent, toy_env, toy_scenarios
from steer_env.testing.vectors import Decode, check_trajectories, check_vector
from steer_env.trajectory import StopReason, Trajectory
from steer_env.types import ASSISTANT, ATTACKER, STUDENT, USER, Message, Scored, Unscored
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import TCSR, TurnReward

#: Replies a judge meets sooner or later; it has to answer each with a verdict.
ODD_REPLIES = (
    "",
    " \n\t ",
    "<|im_end|><|image_pad|><think></answer>",
    "grüße 😀 שלום \u0000 \u202e",
    "{'safety': 10}",
    "again " * 600,
)


def toy_observations(seat: str, env: Any = None, seeds: Sequence[int] = range(6)) -> list[dict[str, Any]]:
    """Return what `seat` observes at each of its turns in a few dialogues, `toy_env()` by default."""
    env = toy_env() if env is None else env
    agents: dict[str, Any] = {ATTACKER: ToyAttacker(), STUDENT: ToyStudent()}
    observations = []
    for seed in seeds:
        env.reset(seed=seed)
        while not (env.terminations[STUDENT] or env.truncations[STUDENT]):
            agent = env.agent_selection
            observation = env.observe(agent)
            if agent == seat:
                observations.append(observation)
            env.step(agents[agent].act([observation])[0])
    return observations


def check_agent(
    agent: Any,
    seat: str,
    observations: Sequence[dict[str, Any]] | None = None,
    *,
    deterministic: bool = True,
    max_length: int = 4096,
) -> None:
    """Check an agent: one valid utterance per observation, in order, touching nothing else.

    An agent with `submit` too is asked both ways. `Failed` is an answer, but not to everything.

    Args:
        agent: Object with `act(observations)`, and `submit(observation)` if it answers one by one.
        seat: "attacker_0" or "student_0".
        observations: What to show it, toy dialogues by default; at least two.
        deterministic: Also check that the same observation gives the same utterance, alone, in a batch and in
            another order. Pass False for a model that samples.
        max_length: Longest utterance the environment takes.

    Raises:
        AssertionError: At the first broken rule.
    """
    assert seat in (ATTACKER, STUDENT), f"seat={seat!r}, expected {ATTACKER!r} or {STUDENT!r}"
    shown = list(toy_observations(seat) if observations is None else observations)
    before = copy.deepcopy(shown)
    name = type(agent).__name__
    pristine = _copy(agent) if deterministic else agent
    with global_random_untouched(f"{name}.act"):
        said = agent.act(shown)
    assert shown == before, (
        f"{name}.act changed its observations, expected them untouched; copy what you edit"
    )
    _one_each(name, said, len(shown))
    space = Unicode(max_length)
    failures = [one.reason for one in said if isinstance(one, Failed)]
    assert len(failures) < len(said), f"{name}.act failed everywhere, expected utterances: {failures[0]}"
    for utterance in said:
        assert isinstance(utterance, Failed) or space.contains(utterance), (
            f"{name}.act returned {utterance!r}, expected a str of up to {max_length} characters without "
            "lone surrogates"
        )
    assert list(agent.act([])) == [], f"{name}.act([]) is not [], expected no utterance for no observation"
    if deterministic:
        _check_batching(name, pristine, shown, list(said))
    if isinstance(agent, AsyncAgent):
        _check_submit(name, agent, shown, list(said) if deterministic else None, space)


def _copy(agent: Any) -> Any:
    """Return a copy in the same state; a connection cannot be copied and holds no state of dialogues."""
    try:
        return copy.deepcopy(agent)
    except TypeError:
        return agent


def _check_submit(
    name: str, agent: AsyncAgent, shown: list[Any], said: list[Any] | None, space: Unicode
) -> None:
    futures = [agent.submit(observation) for observation in shown]
    for i, future in enumerate(futures):
        assert isinstance(future, Future), (
            f"{name}.submit returned {future!r}, expected a concurrent.futures.Future"
        )
        error = future.exception(timeout=300)
        assert error is None, (
            f"{name}.submit's future raised {error!r}, expected a value; return Failed(reason) for a failure"
        )
        answer = future.result()
        assert isinstance(answer, Failed) or space.contains(answer), (
            f"{name}.submit gave {answer!r}, expected a str the environment takes, or Failed(reason)"
        )
        assert said is None or answer == said[i], (
            f"{name}.submit said {answer!r} where act said {said[i]!r}, expected the same; let one call the "
            "other, or pass deterministic=False for a model that samples"
        )


def _one_each(name: str, said: Any, expected: int) -> None:
    assert isinstance(said, list | tuple), f"{name}.act returned {said!r}, expected a list of str"
    assert len(said) == expected, (
        f"{name}.act returned {len(said)} utterances for {expected} observations, expected one each, in order"
    )


def _check_batching(name: str, pristine: Any, shown: list[Any], said: list[str]) -> None:
    again = list(_copy(pristine).act(shown))
    assert again == said, (
        f"{name}.act gave {said!r}, then {again!r} for the same observations; derive randomness from "
        "steer_env.agents.base.observation_rng, or pass deterministic=False for a model that samples"
    )
    backwards = list(_copy(pristine).act(shown[::-1]))[::-1]
    assert backwards == said, f"{name}.act depends on the order of the batch: {said!r} and {backwards!r}"
    for i, observation in enumerate(shown[:4]):
        (alone,) = _copy(pristine).act([observation])
        assert alone == said[i], (
            f"{name}.act said {said[i]!r} in a batch and {alone!r} alone; an utterance may depend on its own "
            "observation only"
        )


def check_student(
    student: Any, *, decode: Decode | None = None, image_token: int | None = None
) -> list[Trajectory]:
    """Check a student against every invariant of this kit that a student can break.

    Plays toy dialogues with pictures in several turns: `check_agent`, then `check_env` and `check_vector`
    with this student in its seat, then `check_trajectories` on a rollout of groups.

    Args:
        student: A student that answers the same to the same; give a model temperature 0.
        decode: See `check_trace`; for students whose replies carry a trace.
        image_token: See `check_trace`.

    Returns:
        The dialogues of the rollout, for checks of your own.

    Raises:
        AssertionError: At the first broken rule.
    """

    def make() -> Any:
        return TCSR(TurnReward(toy_env()))

    check_agent(student, STUDENT)
    check_env(make, (0, 1), attacker=ToyAttacker(), student=student)
    check_vector(make, attacker=ToyAttacker(), student=student, num_envs=2)
    with global_random_untouched(f"a rollout of {type(student).__name__}"):
        played = rollout(VectorDialogueEnv([make] * 4), ToyAttacker(), student, [0, 0, 3, 3, 5, 8])
    failed = [trajectory.error for trajectory in played if trajectory.stop == StopReason.FAILED]
    assert not failed, f"{len(failed)} of {len(played)} dialogues failed ({failed[0]}), expected none"
    check_trajectories(played, decode=decode, image_token=image_token)
    return played


def toy_requests(scenarios: Sequence[Scenario] | None = None) -> list[JudgeRequest]:
    """Return requests for plain and odd replies in a few scenarios, dialogues of several turns included."""
    requests = []
    for k, scenario in enumerate(toy_scenarios() if scenarios is None else scenarios):
        transcript: tuple[Message, ...] = ()
        for i, turn in enumerate(scenario.turns):
            transcript += (Message(USER, turn.text, len(turn.images)),)
            for odd in ODD_REPLIES if i == 0 else ():
                requests.append(JudgeRequest(scenario, (*transcript, Message(ASSISTANT, odd))))
            transcript += (Message(ASSISTANT, f"a plain reply number {k} {i}"),)
            requests.append(JudgeRequest(scenario, transcript))
    return requests


def check_judge(
    judge: Any, requests: Sequence[JudgeRequest] | None = None, *, deterministic: bool = True
) -> None:
    """Check a judge: one verdict per request, in order, `Unscored` rather than an exception or a made-up one.

    Args:
        judge: Object with `name` and `judge(requests)`; its `submit(request)` is asked as well if it has one.
        requests: What to judge; by default toy scenarios with plain and odd replies. Give some that it can
        score.
        deterministic: Also check that verdicts do not depend on the batch, its order or the context.

    Raises:
        AssertionError: At the first broken rule.
    """
    assert isinstance(getattr(judge, "name", None), str) and judge.name, (
        f"judge.name={getattr(judge, 'name', None)!r}, expected a non-empty str; reports name the judge"
    )
    asked = list(toy_requests() if requests is None else requests)
    given = _verdicts(judge, asked)
    empty = judge.judge([])
    assert list(empty) == [], f"judge([])={empty!r}, expected [] for no request"
    if deterministic:
        _check_judging(judge, asked, given)
    if isinstance(judge, AsyncJudge):
        for request, one, future in [
            (r, v, judge.submit(JudgeRequest(r.scenario, r.transcript)))
            for r, v in zip(asked, given, strict=True)
        ]:
            two = read_verdict(judge, future)
            assert not deterministic or _same(one, two), (
                f"judge {judge.name!r} gave {one!r} and by submit {two!r} for "
                f"{request.transcript[-1].content!r}, expected the same"
            )


def _verdicts(judge: Any, requests: list[JudgeRequest]) -> list[Any]:
    fresh = [JudgeRequest(r.scenario, r.transcript) for r in requests]
    try:
        with global_random_untouched(f"judge {judge.name!r}"):
            verdicts = judge.judge(fresh)
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(
            f"judge {judge.name!r} raised {type(error).__name__}: {error}; expected a verdict for every "
            "request: return Unscored(reason) for what cannot be judged"
        ) from error
    assert isinstance(verdicts, list | tuple) and len(verdicts) == len(requests), (
        f"judge {judge.name!r} returned {verdicts!r} for {len(requests)} requests, expected a list with one "
        "verdict each"
    )
    for request, verdict in zip(requests, verdicts, strict=True):
        assert isinstance(verdict, Scored | Unscored), (
            f"judge {judge.name!r} returned {verdict!r} for the reply {request.transcript[-1].content!r}, "
            "expected Scored or Unscored; a failure is Unscored(reason), never None or a number"
        )
    return list(verdicts)


def _check_judging(judge: Any, asked: list[JudgeRequest], given: list[Any]) -> None:
    backwards = _verdicts(judge, asked[::-1])[::-1]
    for request, one, two in zip(asked, given, backwards, strict=True):
        assert _same(one, two), (
            f"judge {judge.name!r} gave {one!r} and then {two!r} for {request.transcript[-1].content!r}, "
            "expected the "
            "same; a verdict may depend on its own request only (pass deterministic=False for a model that "
            "samples)"
        )
    # One scratch dict per dialogue, carried from turn to turn as the environment does.
    contexts: dict[str, dict[str, Any]] = {}
    for request, one in zip(asked, given, strict=True):
        context = contexts.setdefault(request.scenario.id, {})
        (two,) = judge.judge([JudgeRequest(request.scenario, request.transcript, context)])
        assert _same(one, two), (
            f"judge {judge.name!r} gave {one!r} with an empty context and {two!r} with the dialogue's, for "
            f"{request.transcript[-1].content!r}; the context may save work, never change a verdict"
        )


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, Scored) and isinstance(two, Scored):
        return one.terms == two.terms and one.leaked == two.leaked
    return type(one) is type(two)
