"""Judges by name: `rule`, a model behind a back end, or judges made of judges.

==============================================  ===================================================
name                                            judge
==============================================  ===================================================
``rule``                                        the built-in world's rule judge; the paper's way with
                                                ``rule?lock_faithfulness=no``; ``rule?unread=worst`` for
                                                training (see `RuleJudge`)
``openai:MODEL@URL``, ``hf:PATH``, ``vllm:...``  `LLMJudge` on that back end; its options and the back end's
                                                may follow, as in ``hf:PATH?device=cpu&attempts=2``
``grounded(BACKEND)``                           the same, told the scenario's ground truth
                                                (`steer_env.judges.grounded`)
``tutor``                                       the model in the attacker's seat, in one call for both
                                                (`steer_env.registration.make_seats`)
``llama_guard(BACKEND, JUDGE)``                 safety from a guard model, the rest from JUDGE; also
                                                ``wildguard`` and ``qwen3guard``
``ensemble(JUDGE, JUDGE, ...)``                 median of the members
``worst(JUDGE, JUDGE, ...)``                    the most severe member
``cascade(CHEAP, EXPENSIVE)``                   EXPENSIVE only where CHEAP is unsure; for a model that
                                                speaks freely ``cascade(rule, grounded(BACKEND))``
``cached(JUDGE, FILE)``                         verdicts kept in an SQLite file
``module:Object``, ``file.py:Object``           your own (`steer_env.naming`)
==============================================  ===================================================
"""

from __future__ import annotations

from typing import Any, Final

from steer_env import naming
from steer_env.judges.base import Judge

#: The judge is the model that plays the attacker. Only who opens both seats can make it.
TUTOR: Final = "tutor"
_LLM: Final = frozenset({"prompt", "attempts", "max_tokens", "temperature"})
_EXPECTED: Final = (
    "expected 'rule', a back end such as 'openai:MODEL@URL' or 'hf:PATH', 'tutor', or one of "
    "grounded(BACKEND), llama_guard(BACKEND, JUDGE), wildguard(..), qwen3guard(..), "
    "ensemble(JUDGE, JUDGE), worst(..), cascade(CHEAP, EXPENSIVE), cached(JUDGE, FILE), or your own: "
    f"{naming.EXPECTED}"
)


def open_judge(name: str, **options: Any) -> Judge:
    """Return the judge of a name.

    Args:
        name: See the table above; blanks do not matter.
        **options: Of the back ends.

    Raises:
        ValueError: If the name is not understood.
        BackendError: If a back end cannot be opened.
    """
    head, arguments = _split(name.strip())
    if arguments is None:
        return _single(head, options)
    if head in ("ensemble", "worst") and len(arguments) >= 2:
        from steer_env.judges.combine import Ensemble

        members = [open_judge(argument, **options) for argument in arguments]
        return Ensemble(members, "median" if head == "ensemble" else "worst")
    if head == "cascade" and len(arguments) == 2:
        from steer_env.judges.combine import Cascade

        return Cascade(open_judge(arguments[0], **options), open_judge(arguments[1], **options))
    if head == "cached" and len(arguments) == 2:
        from steer_env.judges.cache import CachedJudge

        return CachedJudge(open_judge(arguments[0], **options), arguments[1])
    if head == "grounded" and len(arguments) == 1 and ":" in arguments[0]:
        from steer_env.judges.grounded import GroundedJudge

        return _on_model(GroundedJudge, arguments[0], options)
    if head in ("llama_guard", "wildguard", "qwen3guard") and len(arguments) == 2:
        from steer_env.judges.guards import GuardJudge
        from steer_env.models import open_backend

        return GuardJudge(head, open_backend(arguments[0], **options), open_judge(arguments[1], **options))
    raise ValueError(f"judge={name!r}, {_EXPECTED}")


def _single(name: str, options: dict[str, Any]) -> Judge:
    if name == "rule" or name.startswith("rule?"):
        return _rule(name)
    if name == TUTOR:
        raise ValueError(
            "judge='tutor' is the model in the attacker's seat, which is not known here; name it there too "
            "(--attacker openai:MODEL@URL), or make the tutor and pass it to both: "
            "tutor = steer_env.make_attacker(id, 'openai:MODEL@URL'), judge=tutor"
        )
    from steer_env.models import is_backend

    if naming.is_reference(name) and not is_backend(name):
        judge: Judge = naming.make(name)
        if not isinstance(judge, Judge):
            raise TypeError(
                f"judge={name!r} is {judge!r:.100}, expected an object with name and judge(requests)"
            )
        return judge
    if ":" in name:
        from steer_env.judges.llm import LLMJudge

        return _on_model(LLMJudge, name, options)
    raise ValueError(f"judge={name!r}, {_EXPECTED}")


def _on_model(kind: Any, name: str, options: dict[str, Any]) -> Judge:
    """Return a judge of a kind on the back end of a name; the judge's own options may stand in it."""
    from steer_env.models import open_backend
    from steer_env.models.base import split
    from steer_env.naming import read_name

    bare, named = read_name(name)
    own, others = split(named, _LLM)
    judge: Judge = kind(open_backend(bare, **{**others, **options}), **own)
    return judge


def _rule(name: str) -> Judge:
    from steer_env.judges.rule import RuleJudge
    from steer_env.naming import read_name

    _, named = read_name(name)
    for key, value in named.items():
        if key not in ("lock_faithfulness", "unread"):
            raise ValueError(
                f"{key} is no option of rule, expected lock_faithfulness=yes or no, unread=unscored or worst"
            )
        if key == "lock_faithfulness" and not isinstance(value, bool):
            raise ValueError(f"{key}={value!r}, expected yes or no")
    return RuleJudge(**named)


def _split(text: str) -> tuple[str, list[str] | None]:
    """Split "f(a, g(b, c))" into "f" and ["a", "g(b, c)"]; without parentheses the arguments are None."""
    head, bracket, rest = text.partition("(")
    if not bracket or ":" in head:
        return text, None
    if not rest.endswith(")"):
        raise ValueError(f"judge={text!r} does not end in ')'; {_EXPECTED}")
    arguments, depth, start = [], 0, 0
    inner = rest[:-1]
    for place, letter in enumerate(inner):
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            raise ValueError(f"judge={text!r} has a ')' too many; {_EXPECTED}")
        if letter == "," and depth == 0:
            arguments.append(inner[start:place].strip())
            start = place + 1
    if depth:
        raise ValueError(f"judge={text!r} lacks a ')'; {_EXPECTED}")
    arguments.append(inner[start:].strip())
    return head.strip(), arguments
