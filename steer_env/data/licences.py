"""Licence gates: a trainer refuses scenarios whose licence forbids training, unless overridden by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from steer_env.render import counted
from steer_env.scenarios import Scenario

#: Gate -> what in a licence text closes it.
GATES: Final = {
    "non-commercial": re.compile(
        r"non-?\s?commercial|\bNC\b|-NC\b|research (purposes? )?only|only for research", re.IGNORECASE
    ),
    "no-training": re.compile(
        r"no[- ]training|not (be )?used? (for|in) training|test set only", re.IGNORECASE
    ),
    "unstated": re.compile(r"not stated|no licence|unlicensed", re.IGNORECASE),
}


class LicenceGate(ValueError):
    """Scenarios that their licence keeps out of training. `closed` counts them by (gate, dataset)."""

    def __init__(self, message: str, closed: Counter[tuple[str, str]]) -> None:
        super().__init__(message)
        self.closed = closed


def restrictions(licence: str) -> tuple[str, ...]:
    """Return the gates that a licence text closes, in the order of `GATES`; () if none."""
    return tuple(name for name, pattern in GATES.items() if pattern.search(licence))


def dataset_of(scenario: Scenario) -> str:
    """Return the dataset a scenario says it is from: its provenance up to the first colon."""
    return scenario.provenance.split(":", 1)[0].strip()


def check_training_allowed(scenarios: Iterable[Scenario], allow: Sequence[str] = ()) -> None:
    """Raise unless every scenario may be trained on.

    Args:
        scenarios: What is to be trained on. A scenario with an empty licence passes: it is the user's own.
        allow: Overrides: names of gates ("non-commercial", "no-training", "unstated") or datasets, as they
            stand in front of the colon in `Scenario.provenance`.

    Raises:
        LicenceGate: With every closed gate, how many scenarios it holds back, and how to override it.
        ValueError: If a name in `allow` is neither a gate nor a dataset.
    """
    from steer_env.data.loaders import DATASETS

    allow = (allow,) if isinstance(allow, str) else tuple(allow)
    closed: Counter[tuple[str, str]] = Counter()
    licences: dict[tuple[str, str], str] = {}
    seen: set[str] = set()
    for scenario in scenarios:
        name = dataset_of(scenario)
        seen.add(name)
        for gate in restrictions(scenario.licence):
            if gate not in allow and name not in allow:
                closed[gate, name] += 1
                licences[gate, name] = scenario.licence
    known = {*GATES, *DATASETS, *seen}
    unknown = [name for name in allow if name not in known]
    if unknown:
        raise ValueError(
            f"allow={unknown!r}, expected gates ({', '.join(GATES)}) or datasets ({', '.join(sorted(seen))})"
        )
    if closed:
        lines = [
            f"  {counted(count, 'scenario')} of {name or 'an unnamed source'}: "
            f"{gate} ({licences[gate, name]!r}); allow={gate!r}"
            + (f" or allow={name!r} overrides it" if name else " overrides it")
            for (gate, name), count in sorted(closed.items())
        ]
        raise LicenceGate(
            "the licence of some scenarios keeps them out of training:\n"
            + "\n".join(lines)
            + "\nleave them out, or override a gate by name if you hold the right to train on them",
            closed,
        )
