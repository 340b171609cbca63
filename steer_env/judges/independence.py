"""A judge must not be the model it judges, nor the one that attacks, unless that is asked for by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

ROLES: Final = ("student", "attacker")
#: Where back ends and judges made of judges keep what they are made of.
_PARTS: Final = ("backend", "inner", "cheap", "expensive", "helpfulness")


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
    own = set(_weights(judge))
    for role, agent in (("student", student), ("attacker", attacker)):
        if role in allow or (role == "attacker" and agent is judge):
            continue
        shared = sorted(own & set(_weights(agent)))
        if shared:
            raise SelfJudging(
                f"judge {getattr(judge, 'name', judge)!r} has the same weights as the {role} ({shared[0]}), "
                "expected another model: a model favours its own replies. Use another judge, or ask for this "
                f"by name with allow_self_judging=True (--allow-self-judge; allow={{{role!r}}} here)"
            )


def _weights(part: Any) -> Iterator[str]:
    """Yield the identities of all weights behind an object."""
    if part is None:
        return
    identity = getattr(part, "weights", None)
    if isinstance(identity, str) and identity:
        yield identity
    for name in _PARTS:
        yield from _weights(getattr(part, name, None))
    for inner in getattr(part, "judges", None) or ():
        yield from _weights(inner)
