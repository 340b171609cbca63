"""GRPO and its relatives: one class, `PolicyGradient`, with the defaults of this table.

KL weights are the sources'; where a source has none, `beta` is 0 and no reference model is kept.

`grpo` is multi-turn GRPO against a live environment and the default algorithm: a step plays K dialogues for
each of several seeds, compares what each turn answers for (`credit`: its own reward by default) with the
siblings' at the same turn, gives every student token of the turn that advantage, and takes a clipped
policy-gradient step with a KL penalty to the frozen first policy. `grpo_paper` is the paper's (SaFeR-Steer,
arXiv 2604.16358): every token of a dialogue gets the dialogue's whole return (the sum of TCSR values) minus
the mean of its group. Where both depart from the paper, and why:

- The defaults of `lr`, `seeds_per_step` and `steps` suit small models; the paper's are 1e-5, and 64 dialogues
  a step in mini-batches of 2.
- Tokens are averaged over the batch (`aggregation="token"`), the paper does not say how; "sequence" is GRPO's
  own.
- The KL penalty is k2, whose gradient is that of KL(policy to reference); the paper does not say which one it
  has, GRPO's own is k3 (`kl="k3"`). `beta` is 0.025, the paper's 0.1 (its published script
  has 0.001) scaled to advantages that are smaller by as much.
- Turns without a verdict are masked and count as an average turn in the return, and dialogues without any
  verdict are left out of their group's mean; the published code gives them reward 0. Dialogues that failed
  (a lost server) are left out altogether; the limit on unscored turns counts each as one.
- Returns are not divided by the group's standard deviation, as in the paper; `scale=True` does.
- Tokens are those that were sampled, never decoded and encoded again; the mask covers exactly them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import make_dataclass
from typing import Any, Final, NamedTuple

from steer_env.algorithms.base import register_algorithm
from steer_env.algorithms.policy import PolicyGradient


class Preset(NamedTuple):
    """Defaults of a method, and where they are from."""

    about: str
    defaults: Mapping[str, Any]


#: Name -> what is not `PolicyGradient`'s own default.
PRESETS: Final[Mapping[str, Preset]] = {
    "grpo": Preset("GRPO with credit per turn: the mean of the group at the same turn is the baseline.", {}),
    "grpo_paper": Preset(
        "SaFeR-Steer's GRPO (arXiv 2604.16358): one advantage for all turns of a dialogue, its return minus "
        "the group's mean.",
        {"beta": 0.1, "credit": "trajectory"},
    ),
    "dapo": Preset(
        "Clip-higher, token-level loss, no flat groups, no KL (Yu et al. 2025, arXiv 2503.14476, eq. 8-11). "
        "Flat groups are left out, not replaced by others. For overlong replies see `TrainConfig.overlong`.",
        {"beta": 0.0, "clip_high": 0.28, "scale": True, "drop_flat": True},
    ),
    "dr_grpo": Preset(
        "No division by deviation or by length, which favour easy seeds and long wrong replies (Liu et al. "
        "2025, arXiv 2503.20783, sec. 3). `normaliser` is its constant, a generous bound of a dialogue's "
        "student tokens.",
        {"beta": 0.0, "aggregation": "constant"},
    ),
    "gspo": Preset(
        "One ratio per sequence, as the reward is (Zheng et al. 2025, arXiv 2507.18071, eq. 5-7). The clip "
        "is tight because a geometric mean over many tokens hardly moves.",
        {
            "beta": 0.0,
            "ratio": "sequence",
            "clip_low": 3e-4,
            "clip_high": 4e-4,
            "scale": True,
            "aggregation": "sequence",
        },
    ),
    "cispo": Preset(
        "The ratio as a clipped weight without gradient (MiniMax-M1, arXiv 2506.13585, sec. 3.1): no token "
        "loses its gradient to the clip. The source sets no lower bound and does not give its upper one; 5 "
        "(`clip_high` 4) is from Khatri et al. 2025, arXiv 2510.13786.",
        {"beta": 0.0, "surrogate": "cispo", "clip_low": 1.0, "clip_high": 4.0, "scale": True},
    ),
    "rloo": Preset(
        "Leave-one-out baseline, unbiased (Ahmadian et al. 2024, arXiv 2402.14740, sec. 2.4). The KL is a "
        "penalty of the loss here, a part of the reward there.",
        {"leave_one_out": True},
    ),
}

for _name, _preset in PRESETS.items():
    register_algorithm(_name)(
        make_dataclass(
            _name,
            [(field, type(value), value) for field, value in _preset.defaults.items()],
            bases=(PolicyGradient,),
            namespace={"__doc__": _preset.about, "__module__": __name__, "least_group": 2},
            kw_only=True,
        )
    )
