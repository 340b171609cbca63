"""`SteerActs-v0`: the student's seat as a small Markov game, for algorithms that know no text.

    gymnasium.make("steer_env/SteerActs-v0")
    gymnasium.make_vec("steer_env/SteerActs-v0", num_envs=1024)

See docs/acts.md.
"""

from __future__ import annotations

from steer_env.acts.env import ActsEnv
from steer_env.acts.optimum import Optimum, optimum
from steer_env.acts.rules import FEATURES
from steer_env.acts.seats import ActsSeats
from steer_env.acts.speech import ASKS, Act, Ask, say_act, say_ask
from steer_env.acts.vector import ActsVectorEnv

__all__ = [
    "ASKS",
    "FEATURES",
    "Act",
    "ActsEnv",
    "ActsSeats",
    "ActsVectorEnv",
    "Ask",
    "Optimum",
    "optimum",
    "say_act",
    "say_ask",
]
