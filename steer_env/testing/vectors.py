"""Checks for vector environments and for what a rollout leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from numpy.typing import NDArray

from steer_env.testing.play import global_random_untouched, play, script_of
from steer_env.testing.toys import ToyAttacker, ToyStudent
from steer_env.trajectory import StopReason, TokenTrace, Trajectory
from steer_env.types import ATTACKER, STUDENT, Scored, TurnResult, meta_of
from steer_env.vector import VectorDialogueEnv

#: Turns ids into text, special tokens left out.
Decode = Callable[[NDArray[np.int64]], str]


def check_vector(
    make: Callable[[], Any],
    *,
    attacker: Any = None,
    student: Any = None,
    vector: Callable[[list[Callable[[], Any]]], Any] = VectorDialogueEnv,
    num_envs: int = 4,
) -> None:
    """Check that many dialogues in one vector environment are what they are one by one.

    Args:
        make: Returns a fresh AEC environment, bare or wrapped.
        attacker: Deterministic agent for the attacker's seat, `ToyAttacker` if None.
        student: Deterministic agent for the student's seat, `ToyStudent` if None.
        vector: Makes the vector environment from a list of environment factories.
        num_envs: Number of slots.

    Raises:
        AssertionError: At the first broken rule.
    """
    agents = {ATTACKER: attacker or ToyAttacker(), STUDENT: student or ToyStudent()}
    vec = vector([make] * num_envs)
    with global_random_untouched("a vector rollout"):
        seeds = [7 * i for i in range(3 * num_envs)]
        finished = roll(vec, agents, seeds)
    assert sorted(finished) == sorted(seeds), (
        f"finished dialogues {sorted(finished)}, expected one for each of {sorted(seeds)}; return every "
        "dialogue that submit() ends, once"
    )
    for seed in seeds:
        check_finished(finished[seed], make(), agents, seed)
    check_group(vec, num_envs)
    check_refuses_wrong_number(vec, num_envs)


def roll(vec: Any, agents: dict[str, Any], seeds: list[int]) -> dict[int, Any]:
    """Play one dialogue per seed, refilling slots, each seat answering its slots in reversed order."""
    waiting = list(seeds)
    running: dict[int, int] = {}
    first, waiting = waiting[: vec.num_envs], waiting[vec.num_envs :]
    vec.reset(seeds=first)
    running.update(enumerate(first))
    finished = {}
    while running:
        asked = 0
        for agent in (ATTACKER, STUDENT):
            ids, observations = vec.pending(agent)
            asked += len(ids)
            said = list(agents[agent].act(observations))
            for done in vec.submit(agent, ids[::-1], said[::-1]):
                finished[running.pop(done.id)] = done
                if waiting:
                    running[done.id] = waiting.pop(0)
                    vec.start(done.id, running[done.id])
        assert asked or not running, (
            f"slots {sorted(running)} wait for nobody and their dialogues were never returned, expected each "
            "to come back from the submit() that ends it"
        )
    return finished


def check_finished(finished: Any, env: Any, agents: dict[str, Any], seed: int) -> None:
    """A finished dialogue holds every turn, reward and info, the final ones included, as if played alone."""
    alone = play(env, seed, script_of(agents[ATTACKER], agents[STUDENT]))
    rewards = [turn.reward for turn in finished.turns]
    assert len(rewards) == len(alone.replies), (
        f"{len(rewards)} turns for seed={seed}, expected {len(alone.replies)}; deliver the final turn before "
        "autoreset"
    )
    assert np.isclose(sum(rewards), alone.accumulated, rtol=1e-9, atol=1e-12), (
        f"rewards={rewards!r} for seed={seed}, expected them to sum to {alone.accumulated!r} as in a "
        "dialogue played alone; deliver the final reward before autoreset"
    )
    for turn, info in zip(finished.turns, alone.infos, strict=True):
        assert data_equivalence(dict(turn.info), info, exact=True), (
            f"info={dict(turn.info)!r} for seed={seed}, expected {info!r}; copy infos before the slot is "
            "reset"
        )
    assert data_equivalence(finished.observation, alone.final, exact=True), (
        f"final observation for seed={seed} is {finished.observation!r}, expected {alone.final!r}; read it "
        "before the slot starts its next dialogue"
    )


def check_group(vec: Any, size: int) -> None:
    """Equal seeds give one group: the same scenario and opening in each slot."""
    vec.reset(seeds=[11] * size)
    _, observations = vec.pending(ATTACKER)
    assert len(observations) == size, f"{len(observations)} dialogues wait for {ATTACKER}, expected {size}"
    for i, observation in enumerate(observations):
        assert data_equivalence(observation, observations[0], exact=True), (
            f"slot {i} of a group opens with {observation!r}, expected {observations[0]!r}; draw the "
            "scenario from the slot's own generator, seeded by reset"
        )


def check_refuses_wrong_number(vec: Any, size: int) -> None:
    """Too few or too many utterances raise ValueError and change nothing."""
    vec.reset(seed=5)
    ids, before = vec.pending(ATTACKER)
    for said in (["one"] * (size - 1), ["one"] * (size + 1), []):
        try:
            vec.submit(ATTACKER, ids, said)
        except ValueError:
            continue
        raise AssertionError(
            f"{len(said)} utterances for {size} dialogues were accepted, expected a ValueError"
        )
    after_ids, after = vec.pending(ATTACKER)
    assert (ids, len(before)) == (after_ids, len(after)) and data_equivalence(before, after, exact=True), (
        f"slots {ids} waited before the refused call and {after_ids} after it, expected no change; check "
        "first"
    )


# -- trajectories -------------------------------------------------------------------------------------------


def check_trajectories(
    trajectories: Sequence[Trajectory], *, decode: Decode | None = None, image_token: int | None = None
) -> None:
    """Check rewards, scored flags, groups and, where present, token traces of finished dialogues.

    Args:
        trajectories: From `steer_env.rollout`; those that failed are checked up to where they did.
        decode: Passed to `check_trace`.
        image_token: Passed to `check_trace`.

    Raises:
        AssertionError: At the first broken rule.
    """
    scenario_of: dict[int, str] = {}
    for i, trajectory in enumerate(trajectories):
        name = f"trajectories[{i}] (seed={trajectory.seed})"
        first = scenario_of.setdefault(trajectory.seed, trajectory.scenario.id)
        assert first == trajectory.scenario.id, (
            f"{name} plays scenario {trajectory.scenario.id}, expected {first} as its siblings; seed each "
            "dialogue with its group's seed"
        )
        failed = trajectory.stop == StopReason.FAILED
        assert failed == bool(trajectory.error), (
            f"{name} has stop={trajectory.stop!r} and error={trajectory.error!r}, expected a reason "
            "exactly where it failed"
        )
        if failed and not trajectory.turns:
            continue
        check_turns(name, trajectory)
        if trajectory.trace is not None:
            check_trace(trajectory.trace, trajectory.turns, decode=decode, image_token=image_token)


def check_turns(name: str, trajectory: Trajectory) -> None:
    """Rewards are finite and sum to the declared return; unscored turns carry no number."""
    turns = trajectory.turns
    assert turns, f"{name} has no turns, expected at least one; keep the final turn"
    rewards = [turn.reward for turn in turns]
    assert np.isfinite(rewards).all(), (
        f"{name}: rewards={rewards!r}, expected finite numbers; mask unscored turns"
    )
    if "return" in turns[-1].info:
        declared = turns[-1].info["return"]
        assert np.isclose(declared, trajectory.total, rtol=1e-9, atol=1e-12), (
            f"{name}: rewards sum to {trajectory.total!r}, expected the declared return {declared!r}; keep "
            "every turn's emitted reward, the final one included"
        )
    for k, result in enumerate(turns):
        scored = isinstance(result.turn.verdict, Scored)
        assert result.info.get("scored", scored) == scored, (
            f"{name} turn {k}: info['scored']={result.info['scored']!r} with "
            f"verdict={result.turn.verdict!r}, expected {scored}"
        )
        assert scored or not result.info.get("reward_terms"), (
            f"{name} turn {k}: reward_terms={result.info['reward_terms']!r} of an unscored turn, expected "
            "none"
        )
        assert result.turn.index == k, (
            f"{name} turn {k} has index {result.turn.index}, expected {k}; keep all turns"
        )


def check_trace(
    trace: TokenTrace,
    turns: Sequence[TurnResult] = (),
    *,
    decode: Decode | None = None,
    image_token: int | None = None,
) -> None:
    """Check that a packed token sequence is what the engine saw and that its loss mask is exact.

    Args:
        trace: The whole dialogue's tokens.
        turns: The turns; where a reply carries the trace up to its own turn in `meta["trace"]`, it must be a
        prefix.
        decode: If given, the sampled tokens of each turn must decode to its reply.
        image_token: If given, id of the image placeholder: there must be some if and only if images were
        shown.

    Raises:
        AssertionError: At the first broken rule.
    """
    check_mask(trace)
    sampled_turns = sorted(set(trace.turn_L[trace.sampled_L].tolist()))
    if turns:
        assert sampled_turns == list(range(len(turns))), (
            f"sampled tokens belong to turns {sampled_turns}, expected all of 0..{len(turns) - 1}; append "
            "every reply's ids to the trace, its end token included"
        )
        shown = sum(result.turn.images for result in turns)
        assert trace.images == shown, (
            f"trace.images={trace.images}, expected {shown}, the images of its turns; a placeholder needs "
            "its picture"
        )
    for k, result in enumerate(turns):
        partial = meta_of(result.turn.reply).get("trace")
        if isinstance(partial, TokenTrace):
            check_prefix(partial, trace, k)
        if decode is not None:
            text = decode(trace.ids_L[trace.sampled_L & (trace.turn_L == k)])
            assert text == result.turn.reply, (
                f"turn {k}: the sampled tokens decode to {text!r}, expected the reply "
                f"{str(result.turn.reply)!r}; train "
                "on the ids that were sampled, never on text encoded again"
            )
    if image_token is not None:
        runs = _runs(trace.ids_L == image_token)
        assert runs == trace.images, (
            f"{runs} runs of image placeholders for {trace.images} images, expected as many; drop or add a "
            "picture together with its placeholders"
        )


def check_mask(trace: TokenTrace) -> None:
    """The mask, the turn indices and the log-probabilities agree on which tokens were sampled."""
    mask, turn = trace.sampled_L, trace.turn_L
    wrong = np.flatnonzero(mask != (turn >= 0))
    assert not wrong.size, (
        f"sampled_L and turn_L disagree at positions {wrong[:8].tolist()}, expected turn_L >= 0 exactly "
        "where sampled"
    )
    order = turn[mask]
    assert (np.diff(order) >= 0).all(), (
        f"turn_L={order.tolist()} over sampled tokens, expected it never to fall"
    )
    logprobs = trace.logprobs_L
    assert np.isfinite(logprobs).all() and (logprobs <= 1e-4).all(), (
        "logprobs_L has values above 0 or not finite, expected log-probabilities; use torch.where, not a "
        "product with the mask, where a token is impossible"
    )
    stray = np.flatnonzero(~mask & (logprobs != 0))
    assert not stray.size, (
        f"logprobs_L is not 0 at unsampled positions {stray[:8].tolist()}, expected 0 there"
    )


def check_prefix(partial: TokenTrace, whole: TokenTrace, turn: int) -> None:
    """What the engine saw up to a turn is the beginning of what it saw in the end, token by token."""
    n = len(partial)
    for field in ("ids_L", "sampled_L", "logprobs_L", "turn_L"):
        one, two = getattr(partial, field), getattr(whole, field)[:n]
        assert np.array_equal(one, two), (
            f"turn {turn}: {field} of the trace up to here differs from the start of the final one; append "
            "ids to the last prompt instead of rendering the chat again"
        )


def _runs(mask: NDArray[np.bool_]) -> int:
    padded = np.concatenate([[False], mask])
    return int((padded[1:] & ~padded[:-1]).sum())
