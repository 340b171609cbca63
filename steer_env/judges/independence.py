"""A judge must not be the model it judges, nor the one that attacks, unless that is asked for by name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from steer_env.judges.parts import weights_of

ROLES: Final = ("student", "attacker")


class SelfJudging(ValueError):
    """The judge has the weights of the student or the attacker."""


def check_independent(
    judge: Any, student: Any = None, attacker: Any = None, *, allow: Collection[str] = ()
) -> None:
    """Make sure that the judge is neither the student nor the attacker.

    Weights are compared by identity: the `weights` of the object, of its back end and of the judges it is
    made of. An object without any, such as a script, is nobody's double. An attacker that is the judge
    itself, the very same object, is a tutor that does both by design.

    Args:
        judge: A judge or None.
        student: The agent under test or in training.
        attacker: The agent that plays the user.
        allow: Roles whose weights the judge may share: "student", "attacker".

    Raises:
        SelfJudging: If it shares weights with a role that is not allowed.
        ValueError: If `allow` names anything else.
    """
    unknown = sorted(set(allow) - set(ROLES))
    if unknown:
        raise ValueError(f"allow={unknown!r}, expected names of roles: {', '.join(ROLES)}")
    own = set(weights_of(judge))
    for role, agent in (("student", student), ("attacker", attacker)):
        if role in allow or (role == "attacker" and agent is judge):
            continue
        shared = sorted(own & set(weights_of(agent)))
        if shared:
            tutor = ", judge='tutor' for one model in both seats" if role == "attacker" else ""
            raise SelfJudging(
                f"judge {getattr(judge, 'name', judge)!r} has the same weights as the {role} ({shared[0]}), "
                f"expected another model: a model favours its own replies. Use another judge{tutor}, or ask "
                f"for this by name: --allow-self-judge {role}, in Python allow_self_judging=({role!r},)"
            )


def check_env(env: Any, student: Any, attacker: Any = None, *, allow: Collection[str] = ()) -> None:
    """Do `check_independent` for the judges of a vector environment; others than ours are left alone.

    Args:
        env: A vector environment.
        student: See `check_independent`.
        attacker: See `check_independent`.
        allow: See `check_independent`.

    Raises:
        SelfJudging: See `check_independent`.
    """
    cores = (getattr(one, "unwrapped", None) for one in getattr(env, "envs", ()))
    judges = {id(judge): judge for core in cores if (judge := getattr(core, "judge", None)) is not None}
    for judge in judges.values():
        check_independent(judge, student, attacker, allow=allow)
