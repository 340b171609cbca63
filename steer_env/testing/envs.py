"""Checks for environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pettingzoo.utils.wrappers import BaseWrapper

from steer_env.env import DialogueEnv
from steer_env.forking import fork
from steer_env.images import Image
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.testing.play import (
    Played,
    Script,
    global_random_untouched,
    mutable_parts,
    parts,
    plain_script,
    play,
    same,
    script_of,
    strings,
)
from steer_env.testing.toys import UNSCORED_WORD
from steer_env.types import ATTACKER, STUDENT, Utterance

Make = Callable[[], Any]

#: Word that every secret of the planted scenario contains.
CANARY = "canary8f3a"


def check_env(
    make: Make, seeds: tuple[int, ...] = (0, 1, 2), *, attacker: Any = None, student: Any = None
) -> None:
    """Check an AEC dialogue environment, bare or wrapped.

    Args:
        make: Returns a fresh environment on every call.
        seeds: Reset seeds to play.
        attacker: Agent that speaks for the attacker; with `student` it replaces the kit's fixed texts. Give a
            pair whose turns your judge can score, or the rewards are all zero and little is checked.
        student: Agent that speaks for the student.

    Raises:
        AssertionError: At the first broken rule.
    """
    script = partly_unscored if attacker is None or student is None else script_of(attacker, student)
    check_dialogue(make, seeds, script)
    for seed in seeds:
        check_forks(make, seed, script)


def check_dialogue(make: Make, seeds: tuple[int, ...], script: Script) -> None:
    """Check whole dialogues, without forks."""
    check_spaces(make(), script)
    for seed in seeds:
        check_reproducible(make, seed, script)
        check_rewards_add_up(make(), seed, script)
        check_nothing_shared(make(), seed)
        check_images(make(), seed, script)
    check_reset_forgets(make, seeds, script)
    check_refuses_bad_actions(make(), seeds[0])
    if isinstance(make().unwrapped, DialogueEnv):
        check_secrets_kept(make())


# -- one rule each ------------------------------------------------------------------------------------------


def check_spaces(env: Any, script: Script = plain_script) -> None:
    """Spaces are the same object on every call and hold the observations of a whole dialogue."""
    for agent in (ATTACKER, STUDENT):
        assert agent in env.possible_agents, (
            f"possible_agents={env.possible_agents!r}, expected {agent!r} among them"
        )
        for name in ("observation_space", "action_space"):
            space = getattr(env, name)
            assert space(agent) is space(agent), (
                f"{name}({agent!r}) returned two different objects, expected the same one; build it in "
                "__init__"
            )
    for i, observation in enumerate((played := play(env, 0, script)).observations):
        agent = played.order[i]
        assert env.observation_space(agent).contains(observation), (
            f"observation {i} of {agent} is not in its space: {observation!r}, expected "
            f"{env.observation_space(agent)}"
        )


def check_reproducible(make: Make, seed: int, script: Script = plain_script) -> None:
    """The same seed gives the same dialogue in two instances, and no global random state is touched."""
    with global_random_untouched(f"a dialogue of {make()} with seed={seed}"):
        one, two = play(make(), seed, script), play(make(), seed, script)
    same(f"two fresh environments, seed={seed}", one, two, "draw only from self.np_random, seeded in reset()")


def check_rewards_add_up(env: Any, seed: int, script: Script = plain_script) -> None:
    """What `last()` hands out sums to what was emitted, final turn included, and to the declared return."""
    played = play(env, seed, script)
    total = sum(played.emitted)
    assert np.isfinite(total), (
        f"emitted rewards {played.emitted!r}, expected finite numbers; mask unscored turns"
    )
    assert np.isclose(played.accumulated, total, rtol=1e-9, atol=1e-12), (
        f"accumulated reward={played.accumulated!r} over last(), expected {total!r}, the sum of env.rewards; "
        "own `rewards` and `_cumulative_rewards` as steer_env.wrappers.RewardWrapper does, never override "
        "last(), and keep the final turn's reward for the dead step"
    )
    if played.infos and "return" in played.infos[-1]:
        declared = played.infos[-1]["return"]
        assert np.isclose(declared, total, rtol=1e-9, atol=1e-12), (
            f"info['return']={declared!r}, expected {total!r}, the sum of the emitted rewards; emit "
            "increments of the declared return, and put wrappers that change rewards inside TCSR"
        )


def check_nothing_shared(env: Any, seed: int) -> None:
    """Observations and infos of different calls share no mutable part, so nobody can edit the environment."""
    env.reset(seed=seed)
    earlier: dict[int, str] = {}
    kept = []  # keeps ids from being used again
    for cycle in range(3):
        for agent in (ATTACKER, STUDENT):
            if not env.agents or env.terminations[agent] or env.truncations[agent]:
                return
            for _ in range(2):
                observation = env.observe(agent)
                kept.append(observation)
                shared = mutable_parts(observation).keys() & earlier.keys()
                assert not shared, (
                    f"observation of {agent} shares mutable {[earlier[i] for i in shared]} with an earlier "
                    "one; build containers anew and keep the parts immutable (tuples, read-only arrays)"
                )
                earlier |= mutable_parts(observation)
            env.step(plain_script(agent, cycle))
            if agent == STUDENT:
                info = env.infos[STUDENT]
                kept.append(info)
                shared = mutable_parts(info).keys() & earlier.keys()
                assert not shared, (
                    f"info of turn {cycle} shares mutable {[earlier[i] for i in shared]} with an earlier "
                    "one; return a fresh dict per turn"
                )
                earlier |= mutable_parts(info)


def check_images(env: Any, seed: int, script: Script = plain_script) -> None:
    """As many images as the transcript says are shown, no more and no fewer: none lost, none orphaned."""
    played = play(env, seed, script)
    for observation in [*played.observations, played.final]:
        if not isinstance(observation, dict) or "transcript" not in observation:
            return  # an observation wrapper changed the layout; there is nothing to count
        shown = sum(message[2] for message in observation["transcript"])
        assert len(observation["images"]) == shown, (
            f"{len(observation['images'])} images for a transcript that shows {shown}, expected as many; "
            "drop or add a message's images together with the message"
        )


def check_reset_forgets(make: Make, seeds: tuple[int, ...], script: Script = plain_script) -> None:
    """A reset environment plays like a fresh one, after a whole dialogue and after an abandoned one."""
    used = make()
    for seed in seeds:
        for stop_after in (10_000, 2, 1):
            play(used, seed + 1, _other_script, max_turns=stop_after)
            same(
                f"seed={seed} after a dialogue of at most {stop_after} utterances, and in a fresh "
                "environment",
                play(used, seed, script),
                play(make(), seed, script),
                "reset() must forget everything about the last dialogue; in a RewardWrapper, do it in "
                "begin()",
            )


def check_forks(make: Make, seed: int, script: Script = plain_script) -> None:
    """A fork that goes on with the same words earns the same, and what it does is nothing to the original.

    Environments of which a layer has no `fork` are left alone.
    """
    layer = make()
    while getattr(type(layer), "fork", None) is None:
        if not isinstance(layer, BaseWrapper):
            return
        layer = layer.env
    whole = _emitted(_started(make(), seed), script)
    for cycles in range(3):
        env = _started(make(), seed)
        before = _emitted(env, script, cycles)
        if not env.agents or env.terminations[STUDENT] or env.truncations[STUDENT]:
            return
        same_words, others = fork(env), fork(env)
        _emitted(others, _other_script)
        expected = (whole, before + _emitted(same_words, script), before + _emitted(env, script))
        assert expected[0] == expected[1] == expected[2], (
            f"rewards and infos {expected[1]!r} of a fork after {cycles} cycles and {expected[2]!r} of the "
            f"original, expected {expected[0]!r} of both; fork() must copy all state and share none that "
            "changes"
        )
        env = _started(make(), seed)
        _emitted(env, script, cycles)
        twin = fork(env)
        for name in ("rewards", "_cumulative_rewards", "infos", "terminations", "truncations", "agents"):
            one, two = getattr(env, name, None), getattr(twin, name, None)
            assert one == two and (one is None or one is not two), (
                f"{name}={two!r} of a fork, expected an equal copy of {one!r}; copy it in fork()"
            )
        shared = mutable_parts(env.infos).keys() & mutable_parts(twin.infos).keys()
        assert not shared, f"infos of a fork share {shared} mutable parts with the original's, expected none"


def _started(env: Any, seed: int) -> Any:
    env.reset(seed=seed)
    return env


def _emitted(env: Any, script: Script, cycles: int | None = None) -> list[tuple[float, str]]:
    """Play on, for some cycles or to the end; returns the reward and the info of each reply."""
    found: list[tuple[float, str]] = []
    while env.agents and not (env.terminations[STUDENT] or env.truncations[STUDENT]):
        agent, cycle = env.agent_selection, env.unwrapped.cycle
        if agent == ATTACKER and cycles is not None and len(found) == cycles:
            break
        env.step(script(agent, cycle, env.observe(agent)))
        if agent == STUDENT:
            found.append((float(env.rewards[STUDENT]), repr(env.infos[STUDENT])))
    return found


def check_refuses_bad_actions(env: Any, seed: int) -> None:
    """Actions that are no utterance raise and change nothing; a finished dialogue refuses to go on."""
    expected = play(env, seed)
    env.reset(seed=seed)
    limit = getattr(env.action_space(ATTACKER), "max_length", 4096)
    for bad in (None, 7, b"bytes", ["a list"], "x" * (limit + 1), "lone surrogate \ud800"):
        try:
            env.step(bad)
        except (ValueError, TypeError) as error:
            assert str(error), (
                f"{type(error).__name__} without a message for action={bad!r}; name value and remedy"
            )
            continue
        raise AssertionError(
            f"action={str(bad)[:40]!r} was accepted, expected a ValueError; validate before stepping"
        )
    played = Played()
    cycle = 0
    while not (env.terminations[STUDENT] or env.truncations[STUDENT]):
        agent = env.agent_selection
        played.order.append(agent)
        env.step(plain_script(agent, cycle))
        played.emitted.append(float(env.rewards[STUDENT]))
        cycle += agent == STUDENT
    assert (played.order, played.emitted) == (expected.order, expected.emitted), (
        f"after refused actions the rewards are {played.emitted!r}, expected {expected.emitted!r}; check an "
        "action before changing anything"
    )
    try:
        env.step("one more")
    except (ValueError, RuntimeError):
        return
    raise AssertionError(
        "step('one more') after the end was accepted, expected an error; call _was_dead_step first"
    )


def canary_scenario() -> Scenario:
    """Return a scenario whose goal, drafts and turn goals all contain `CANARY`."""
    picture = [Image.from_array(np.full((4, 4, 3), value, np.uint8), "canary") for value in (1, 2)]
    return Scenario(
        turns=(
            DraftTurn(f"{CANARY} draft one", images=(0,), goal=f"{CANARY} turn goal"),
            DraftTurn(f"{CANARY} draft two", images=(1,), goal=f"{CANARY} turn goal"),
            DraftTurn(f"{CANARY} draft three"),
        ),
        images=tuple(picture),
        kind="red_team",
        goal=f"{CANARY} goal",
        strategy="authority_figure",
        technique="sunk_cost_anchor",
        category=f"{CANARY} category",
    )


def check_secrets_kept(env: Any) -> None:
    """Goal, drafts, strategy, the attacker's `meta` and later pictures never reach the student."""
    scenario = canary_scenario()
    env.reset(seed=0, options={"scenario": scenario})
    secrets = (CANARY, scenario.strategy, scenario.technique)
    for cycle in range(len(scenario)):
        meta = {"strategy": f"{CANARY} meta", "plan": [f"{CANARY} nested meta"]}
        env.step(Utterance(f"user turn {cycle}", **meta))
        _no_secret("observation", env.observe(STUDENT), secrets)
        _no_later_picture(env.observe(STUDENT), scenario, cycle)
        env.step(Utterance(f"reply {cycle}", trace=f"own {cycle}"))
        # A judge knows the goal and may speak of it; its verdict is for whoever trains, not for the student.
        info = {key: value for key, value in env.infos[STUDENT].items() if key != "verdict"}
        _no_secret("info", info, secrets)
        _no_secret("observation", env.observe(STUDENT), secrets)
        if env.terminations[STUDENT] or env.truncations[STUDENT]:
            return


def _no_secret(what: str, value: Any, secrets: tuple[str, ...]) -> None:
    pictures = [(path, part) for path, part in parts(value) if isinstance(part, Image)]
    labels = [(f"{path}.source", image.source) for path, image in pictures]
    labels += [(path, repr(image)) for path, image in pictures]
    for path, text in (*strings(value), *labels):
        for secret in secrets:
            assert secret not in text, (
                f"the student's {what}{path}={text!r} holds {secret!r}, which only the attacker may know; "
                "give the student images and transcript only, pictures with a neutral source, and strip the "
                "attacker's meta"
            )


def _no_later_picture(observation: Any, scenario: Scenario, cycle: int) -> None:
    later = {
        image for turn in scenario.turns[cycle + 1 :] for image in (scenario.images[i] for i in turn.images)
    }
    for path, part in parts(observation):
        assert not (isinstance(part, Image) and part in later), (
            f"the student's observation{path} at turn {cycle} is a picture of a later turn; show pictures "
            "with the turn that brings them"
        )


def partly_unscored(agent: str, cycle: int, observation: Any = None) -> str:
    """Return plain text of which `ToyJudge` leaves every third reply unscored."""
    text = plain_script(agent, cycle)
    return f"{UNSCORED_WORD}: {text}" if agent == STUDENT and cycle % 3 == 1 else text


def _other_script(agent: str, cycle: int, observation: Any) -> str:
    return f"something quite different, {agent} {cycle}"
