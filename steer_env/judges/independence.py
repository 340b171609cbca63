"""What a judge is made of, and that it is not the model it judges or the one that attacks."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, Final, Protocol, runtime_checkable

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


# -- what it is made of ------------------------------------------------------------------------------------

#: What of a part decides its verdicts.
_DECIDING: Final = (
    "weights", "prompt_hash", "version", "settings", "rule", "min_scored", "max_apart", "guard", "dtype",
)  # fmt: skip


@runtime_checkable
class Composite(Protocol):
    """Something made of judges, agents or back ends, whose weights and prompts are its own as well."""

    def children(self) -> tuple[Any, ...]:
        """Return what it asks, always in the same order."""
        ...


def parts(whole: Any) -> Iterator[Any]:
    """Yield an object and everything it is made of: its `children`, or without that method its `backend`."""
    if whole is None:
        return
    yield whole
    children = whole.children() if isinstance(whole, Composite) else (getattr(whole, "backend", None),)
    for part in children:
        yield from parts(part)


def weights_of(whole: Any) -> list[str]:
    """Return the identities of all weights behind an object; none for a script."""
    found = (getattr(part, "weights", None) for part in parts(whole))
    return [identity for identity in found if isinstance(identity, str) and identity]


def prompt_hash_of(judge: Any) -> str:
    """Return the hashes of all prompts a judge asks with, joined by "+"; "" for one without prompts."""
    found = (getattr(part, "prompt_hash", "") for part in parts(judge))
    hashes = (one for text in found if isinstance(text, str) for one in text.split("+") if one)
    return "+".join(dict.fromkeys(hashes))


def judge_identity(judge: Any) -> str:
    """Return what decides a judge's verdicts beside its name: prompts, weights, settings and versions.

    JSON of all its parts, the same in every process. Who changes a judge in another way gives it another
    `version`.
    """
    described = []
    for part in parts(judge):
        one = {name: getattr(part, name, None) for name in _DECIDING}
        found = {name: str(value) for name, value in one.items() if value is not None and not callable(value)}
        described.append([type(part).__name__, found])
    return json.dumps(described, sort_keys=True)
