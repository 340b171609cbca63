"""What a seed generator is: a batch of jobs in, a seed or a rejection out for each."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from steer_env.data.licences import dataset_of
from steer_env.scenarios import STRATEGIES, TECHNIQUES, Scenario
from steer_env.world.plan import stream_seed

_MARK: Final = "; stage I "


class SeedJob(NamedTuple):
    """One single-turn row to turn into a seed.

    Attributes:
        row: The row: one user turn, its pictures already perturbed; with ground truth if it is the built-in
            world's.
        kind: Which kind of seed to make, one of `steer_env.scenarios.KINDS`.
        turns: Wanted number of user turns, 2..10.
        seed: Decides everything random about this job.
    """

    row: Scenario
    kind: str
    turns: int
    seed: int

    @property
    def strategy(self) -> str:
        """The strategy of a red-team seed, each equally likely."""
        return random.Random(stream_seed("strategy", self.seed)).choice(STRATEGIES)

    @property
    def technique(self) -> str:
        """The escalation technique of a red-team seed, each equally likely."""
        return random.Random(stream_seed("technique", self.seed)).choice(TECHNIQUES)


@dataclass(frozen=True, slots=True)
class Seed:
    """A finished script.

    Attributes:
        scenario: Pictures and user turns, with a risk level and a goal each.
        details: How it was made, JSON-ready: prompt hashes; of a red-team seed the findings, the target, the
            judge and the grade. Written into the scenario's provenance.
    """

    scenario: Scenario
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that gave no seed, and why.

    Attributes:
        stage: Where it fell out: "input", "benign", "obfuscated", "forensics", "rewriting", "planning",
            "simulation" or "output".
        reason: In one word, for counting.
        detail: In one line, for people.
        raw: What the model said last, "" if none was asked.
    """

    stage: str
    reason: str
    detail: str = ""
    raw: str = ""


Outcome = Seed | Rejected


@runtime_checkable
class SeedGenerator(Protocol):
    """Turns single-turn rows into seeds.

    Attributes:
        name: Such as "rule" or "openai:MODEL@URL".
    """

    name: str

    def describe(self) -> dict[str, Any]:
        """Return everything its seeds depend on, JSON-ready; a run is resumed only with the same."""
        ...

    def generate(self, jobs: Sequence[SeedJob]) -> list[Outcome]:
        """Return one outcome per job, in order.

        Raises:
            BackendError: If a model behind it is gone; nothing of the batch counts then.
        """
        ...


def with_details(scenario: Scenario, row: Scenario, details: Mapping[str, Any]) -> Scenario:
    """Return the scenario with `details` in its provenance, behind the dataset and name of its row.

    The text keeps the dataset in front of its colon, where licence gates look for it.
    """
    dataset = dataset_of(row) or "own rows"
    origin = row.provenance.partition(":")[2].strip() or row.group or row.id
    body = json.dumps(details, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return replace(scenario, provenance=f"{dataset}: {origin}{_MARK}{body}")


def seed_details(scenario: Scenario) -> dict[str, Any]:
    """Return how a seed was made: row, generator, perturbation, and of a red-team seed its `grade`.

    Raises:
        ValueError: If the scenario was not written by `steer-env data seeds`.
    """
    return details_in(scenario.provenance, scenario.id)


def details_in(provenance: str, id: str) -> dict[str, Any]:
    """Return the details in the provenance text of scenario `id`. Errors as `seed_details`."""
    _, mark, body = provenance.rpartition(_MARK)
    if not mark:
        raise ValueError(
            f"provenance={provenance!r} of {id} holds no details of a seed; expected a scenario written by "
            "steer-env data seeds"
        )
    details: dict[str, Any] = json.loads(body)
    return details
