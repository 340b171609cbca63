"""Stage I: single-turn rows into three disjoint kinds of multi-turn scripts (paper, Stage I).

`open_source` opens the rows, a `SeedGenerator` writes scripts, `make_seeds` runs one over the other into a
folder of scenario files.
"""

from steer_env.data.seeds.base import Rejected, Seed, SeedGenerator, SeedJob, seed_details
from steer_env.data.seeds.grading import AgentTarget, ChatGrader, ChatTarget, FixedTarget, RuleGrader
from steer_env.data.seeds.llm import ChatGenerator
from steer_env.data.seeds.rows import RowSource, open_source
from steer_env.data.seeds.rule import RuleGenerator
from steer_env.data.seeds.run import SeedsConfig, make_seeds

__all__ = [
    "AgentTarget",
    "ChatGenerator",
    "ChatGrader",
    "ChatTarget",
    "FixedTarget",
    "Rejected",
    "RowSource",
    "RuleGenerator",
    "RuleGrader",
    "Seed",
    "SeedGenerator",
    "SeedJob",
    "SeedsConfig",
    "make_seeds",
    "open_source",
    "seed_details",
]
