"""Checks anyone can run on an environment, wrapper, agent, judge, vector environment or rollout of their own.

    from steer_env import testing

    testing.check_wrapper(lambda env: MyReward(env, weight=0.5))
    testing.check_judge(MyJudge())
    testing.check_agent(MyAttacker(), "attacker_0")

Each check raises `AssertionError` with the value it found, what it expected and what to do. None needs
pytest; only `steer_env.testing.properties` needs hypothesis. The eleven invariants of a sound dialogue
environment, and who checks them:

1. The tokens of the turns, concatenated, are what the engine saw: `check_trace`.
2. The loss mask covers exactly the sampled tokens: `check_trace`.
3. As many image placeholders as images, also after truncation and a round trip to disk: `check_trace`,
   `check_env`.
4. Advantages do not move when observation tokens are inserted: tested with the algorithms.
5. Per-turn rewards sum to the declared return, the final turn included: `check_env`, `check_trajectories`.
6. The same seed gives the same scenario, and no global random state is touched: all checks.
7. Nothing survives `reset()` in any wrapper stack: `check_env`, `check_wrapper`.
8. The final observation and reward survive autoreset: `check_vector`.
9. What only the attacker knows never reaches the student: `check_env`.
10. An unscored verdict never acts as a number: `check_wrapper`, `check_reward_invariants`.
11. A fork goes on as the original would, and neither changes the other: `check_env`, `check_wrapper`.

`check_student` runs those that a student can break on one student, whatever runs its model.
"""

from steer_env.testing.agents import check_agent, check_judge, check_student
from steer_env.testing.envs import check_env
from steer_env.testing.play import global_random_untouched
from steer_env.testing.tcsr import TCSR_INVARIANTS, check_reward_invariants
from steer_env.testing.toys import ToyAttacker, ToyJudge, ToyStudent, toy_env, toy_scenarios
from steer_env.testing.vectors import check_trace, check_trajectories, check_vector
from steer_env.testing.wrappers import check_wrapper

__all__ = [
    "TCSR_INVARIANTS",
    "ToyAttacker",
    "ToyJudge",
    "ToyStudent",
    "check_agent",
    "check_env",
    "check_judge",
    "check_reward_invariants",
    "check_student",
    "check_trace",
    "check_trajectories",
    "check_vector",
    "check_wrapper",
    "global_random_untouched",
    "toy_env",
    "toy_scenarios",
]
