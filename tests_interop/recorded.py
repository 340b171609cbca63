"""Nine dialogues of three groups, with pictures, turns without a verdict and a token trace each.

`python tests_interop/recorded.py` writes them anew, with the tiny student of the package. Each engine gets
the same ones; what it makes of a turn's tokens is compared with `advantages`. What it carried is counted, and
is what `carried.json` says, from which a table of docs/interop.md is made; with STEER_CARRIED=write in the
environment the counts are written there.
"""

import json
import os
from pathlib import Path

import numpy as np

from steer_env.algorithms.advantages import group_advantages, loss_mask, spread
from steer_env.algorithms.credit import group_turn_values, split
from steer_env.records import verdict_from_row, verdict_row
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.trajectory import StopReason, TokenTrace, Trajectory
from steer_env.types import Turn, TurnResult

HERE = Path(__file__).parent
ENV, SEEDS, SIZE = "SteerEscalation-v0", (3, 6, 2), 3
CREDITS = ("own_turn", "discounted", "difference", "reward_to_go", "turn_normalised", "trajectory")
DISCOUNT = 0.5
_INFO = ("turn_reward", "return", "return_defined", "return_rule")


def load():
    """Return the dialogues, groups in a row."""
    return [_dialogue(row) for row in json.loads((HERE / "dialogues.json").read_text())]


def _dialogue(row):
    turns = tuple(
        TurnResult(
            Turn(i, t["user"], t["reply"], verdict_from_row(t["verdict"])), t["reward"], dict(t["info"])
        )
        for i, t in enumerate(row["turns"])
    )
    dtypes = {"ids_L": np.int64, "sampled_L": np.bool_, "logprobs_L": np.float32, "turn_L": np.int32}
    arrays = {name: np.array(row["trace"][name], dtype) for name, dtype in dtypes.items()}
    trace = TokenTrace(**arrays, images=row["trace"]["images"])
    scenario = Scenario(tuple(DraftTurn(t["user"]) for t in row["turns"]))
    return Trajectory(scenario, row["seed"], turns, StopReason(row["stop"]), trace)


def row_of(trajectory):
    trace = trajectory.trace
    names = ("ids_L", "sampled_L", "logprobs_L", "turn_L")
    return {
        "seed": trajectory.seed,
        "stop": str(trajectory.stop),
        "trace": {
            **{name: getattr(trace, name).astype(float).round(6).tolist() for name in names[2:3]},
            **{n: getattr(trace, n).astype(int).tolist() for n in names if n != "logprobs_L"},
            "images": trace.images,
        },
        "turns": [
            {
                "user": str(r.turn.user),
                "reply": str(r.turn.reply),
                "verdict": verdict_row(r.turn.verdict),
                "reward": r.reward,
                "info": {key: r.info[key] for key in _INFO if key in r.info},
            }
            for r in trajectory.turns
        ],
    }


def groups(played):
    return [played[i : i + SIZE] for i in range(0, len(played), SIZE)]


def turn_advantages(played, credit):
    """Return each dialogue's advantages by turn, as the library's own loop has them."""
    result = []
    for members in groups(played):
        values = group_turn_values(members, credit, discount=DISCOUNT)
        result += split(group_advantages(values, scale=credit == "turn_normalised"), members)
    return result


def advantages(played, credit):
    """Return each dialogue's advantages by token, 0 outside the loss."""
    return [
        spread(own, t.trace, loss_mask(t.trace, t.scored))
        for t, own in zip(played, turn_advantages(played, credit), strict=True)
    ]


def pictures(played):
    """Return how many pictures the dialogue of a seed has."""
    import steer_env

    env = steer_env.make(ENV)
    env.reset(seed=played.seed)
    return len(env.unwrapped.scenario.images)


def part(found, of):
    """Return how many of some things an engine carried, in words."""
    assert 0 <= found <= of and of > 0
    return "all" if found == of else f"{found} of {of}" if found else "none"


def check_carried(engine, *, pictures, rewards, unscored, masked, seats, tokens, credits):
    """Compare what was counted of an engine with the table, or write it there.

    Args:
        engine: Its name.
        pictures: (shown, of), as for the next three.
        rewards: Turns that have a reward of their own.
        unscored: Turns without a verdict that are told from those that earned nothing.
        masked: Those of them whose tokens teach nothing, None where there are no tokens.
        seats: Seats that the engine's own models play.
        tokens: Whether the ids are those that were sampled, None where there are none.
        credits: Those that give the same advantages.
    """
    found = {
        "pictures": part(*pictures),
        "rewards": part(*rewards),
        "unscored": part(*unscored),
        "masked": "-" if masked is None else part(*masked),
        "seats": " and ".join(seats),
        "tokens": "-" if tokens is None else "exact" if tokens else "changed",
        "credits": list(credits),
    }
    path = HERE / "carried.json"
    told = json.loads(path.read_text())
    if os.environ.get("STEER_CARRIED") == "write":
        told[engine] = found
        path.write_text(json.dumps(told, indent=1) + "\n")
    assert told.get(engine) == found


def play():
    """Play them with the tiny student."""
    import steer_env
    from steer_env.agents import make_agent
    from steer_env.agents.hf import HFStudent
    from steer_env.rollout import rollout

    student = HFStudent.from_pretrained("tiny-sft", max_new_tokens=10, temperature=1.5)
    env = steer_env.make_vec(ENV, num_envs=len(SEEDS) * SIZE)
    attacker = make_agent("static", seat="attacker_0")
    return rollout(env, attacker, student, [seed for seed in SEEDS for _ in range(SIZE)])


if __name__ == "__main__":
    (HERE / "dialogues.json").write_text(json.dumps([row_of(t) for t in play()]) + "\n")
