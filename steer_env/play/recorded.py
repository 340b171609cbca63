"""Recorded runs: how they are read, their scenarios made again, and whether they may be compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gymnasium.utils import seeding

from steer_env.configs.base import build, names
from steer_env.configs.env import EnvConfig, Split
from steer_env.drawing import redrawn
from steer_env.evaluation.tabulate import judge_name
from steer_env.files import read_json
from steer_env.ids import SPECS
from steer_env.images import Image
from steer_env.play.evaluate import load_rows, members_of
from steer_env.play.logs import is_log, read_dialogues
from steer_env.play.places import reaches_out
from steer_env.play.suites import WholeGroups
from steer_env.records import ROLLOUTS, Row, read_jsonl
from steer_env.registration import make_source, own_scenarios
from steer_env.runs import RUN
from steer_env.scenarios import FixedScenarios, Scenario
from steer_env.versions import versions_in

#: Options of a run that decide which dialogues it holds; with what `evaluate` takes for None.
SUITE = {"env": None, "split": "bench", "suite": "", "scenario_ids": "", "attacker": None}


class NotComparable(ValueError):
    """The runs differ in more than the student."""


@dataclass(frozen=True, eq=False)
class Run:
    """One recorded evaluation: a name, what was run, and a row per dialogue."""

    name: str
    meta: Mapping[str, Any]
    rows: Sequence[Row]


def load_run(folder: str | Path) -> Run:
    """Read a run folder, or a log of Inspect AI; of a training run, the dialogues it recorded.

    Raises:
        ValueError: If it holds no dialogues, or a suite of several runs.
    """
    if is_log(folder):
        return Run(Path(folder).stem, *read_dialogues(folder))
    path, meta = Path(folder), _meta(folder)
    if "parts" in meta:
        parts = ", ".join(str(path / part) for part in meta["parts"])
        raise ValueError(f"run={str(path)!r} is a suite of several runs, expected one of them: {parts}")
    rows = load_rows(path)
    if not rows and (path / ROLLOUTS).exists():
        rows = list(read_jsonl(path / ROLLOUTS))
    if not rows:
        raise ValueError(f"run={str(path)!r} holds no dialogues, expected a folder that `evaluate` wrote")
    return Run(path.name or str(path), meta, rows)


def load_parts(folder: str | Path) -> dict[str, Run]:
    """Read a run folder or every part of a suite: name of the part ("" for a plain run) -> run.

    A part that was not begun yet is left out.

    Raises:
        ValueError: If there are no dialogues.
    """
    path = Path(folder)
    meta = {} if is_log(folder) else _meta(folder)
    if "parts" not in meta:
        return {"": load_run(path)}
    found = {part: load_run(path / part) for part in meta["parts"] if load_rows(path / part)}
    if not found:
        raise ValueError(f"run={str(path)!r} holds no dialogues yet; continue it with --resume")
    return {part: Run(path.name or str(path), run.meta, run.rows) for part, run in found.items()}


def _meta(folder: str | Path) -> dict[str, Any]:
    path = Path(folder) / RUN
    meta: dict[str, Any] = read_json(path) if path.exists() else {}
    return meta


class CannotRescore(ValueError):
    """A stored dialogue lacks what a judge needs."""


@dataclass(frozen=True)
class Scenes:
    """Makes the scenario of a stored dialogue again.

    Attributes:
        config: The environment the dialogues were played in.
        scenarios: The user's own, None for the built-in world.
    """

    config: EnvConfig
    scenarios: Sequence[Scenario] | None = None

    def __call__(self, row: Row) -> Scenario:
        """Return the scenario of a row, with the pictures that the attacker drew.

        Raises:
            CannotRescore: If the row has no seed, or the scenario made from it is not the row's.
        """
        seed = row.get("seed")
        if not isinstance(seed, int) or seed < 0:
            raise CannotRescore(f"seed={seed!r} in a stored dialogue, expected the seed it was played with")
        candidates = list(self._candidates(seed))
        for made in candidates:
            if made.id == row.get("scenario"):
                return redrawn(made, (turn.get("acts", ()) for turn in row["turns"]))
        raise CannotRescore(
            f"seed {seed} makes scenario {candidates[0].id!r}, the stored dialogue has "
            f"{row.get('scenario')!r}; it was played with other scenarios, options or another version: use "
            "those, or evaluate anew"
        )

    def _candidates(self, seed: int) -> Iterator[Scenario]:
        """Yield what a seed may have stood for: `evaluate` numbers whole groups, training draws."""
        if self.scenarios is not None:
            yield self.scenarios[seed % len(self.scenarios)]
            return
        source: Any = make_source(self.config)
        if members_of(source):
            yield source.scenario(seed)
        yield source.sample(seeding.np_random(seed)[0])


def scenes_of(meta: Mapping[str, Any], *, scenarios: str | None = None, trust: bool = False) -> Scenes:
    """Return what makes the scenarios of a run again, from what its folder says of itself.

    Only the scenarios are wanted: a model that attacked or judged need not be there any more.

    Args:
        meta: Of `run.json`.
        scenarios: Where they come from now, in place of what `meta` says.
        trust: Run the code that it names, see `steer_env.naming`.

    Raises:
        CannotRescore: If it does not name its environment.
        ValueError: If an option has no meaning any more.
        OSError: If the scenario file is gone.
    """
    if "env" not in meta:
        raise CannotRescore(
            "the run does not say its environment (no 'env' in run.json), expected a folder that `steer-env "
            "evaluate` wrote; with other rows use the Python function `rescore`"
        )
    if meta.get("groups"):
        played = WholeGroups(meta["env"], meta["split"], meta["groups"], meta.get("seed", 0))
        return Scenes(EnvConfig(meta["env"], meta["split"]), played)
    code = [meta["env"]] if ":" in str(meta["env"]) else []
    if scenarios is not None:
        meta = {**meta, "scenarios": scenarios}
    elif reaches_out(meta.get("scenarios"), "scenarios"):
        code.append(meta["scenarios"])
    if code and not trust:
        raise CannotRescore(
            f"the scenarios come from {code[0]!r}, and making them again would run code, or fetch from the "
            "hub, that a run folder names; accept it with --trust (trust=True)"
        )
    known = set(names(EnvConfig)) - {"attacker", "judge", "wrappers", "allow_self_judge"}
    env = build(EnvConfig, {name: meta[name] for name in meta if name in known and meta[name] is not None})
    if own_scenarios(env) is not None:
        source = make_source(env)
        return Scenes(env, tuple(source) if isinstance(source, FixedScenarios) else None)
    usual: Split = "train" if meta.get("command") == "train" else "bench"
    return Scenes(replace(env, split=env.split or usual))


def pictures_of(meta: Mapping[str, Any]) -> Callable[[Row], Sequence[Image]]:
    """Return what gives the pictures of a run's dialogues; none where its scenarios cannot be made again."""
    try:
        scenes = scenes_of(meta)
    except (ValueError, OSError):  # the scenario file has moved: the report stands without pictures
        return lambda row: ()

    def pictures(row: Row) -> Sequence[Image]:
        try:
            return scenes(row).images
        except ValueError:  # another version of the world made this dialogue
            return ()

    return pictures


def differences(runs: Sequence[Run], *, common: bool = False) -> list[str]:
    """Return what keeps runs from being compared, one line each; empty if nothing does.

    Args:
        runs: At least one.
        common: Do not mind that seeds differ: those all runs share are compared.
    """
    found = []
    for key in SUITE:
        found += _unequal(key, {run.name: _setting(run.meta, key) for run in runs if run.meta})
    if not all(_same_judge(runs[0], run) for run in runs[1:]):
        found += _unequal("judge", {run.name: _judges(run) for run in runs})
    for key in ("world_version", "judge_version"):
        lines = _unequal(key, {run.name: versions_in(run.meta)[key] for run in runs})
        found += [f"{line}; play and judge all of them with one version" for line in lines]
    seeds = {run.name: {row.get("seed") for row in run.rows} for run in runs}
    shared = set.intersection(*seeds.values())
    if not common:
        found += _unequal_seeds(seeds)
    elif not shared:
        found.append("seeds: none in common")
    for run in runs:
        if len(seeds[run.name]) != len(run.rows):
            found.append(f"seeds: {run.name} holds a seed more than once")
    by_seed = [{row.get("seed"): row.get("scenario") for row in run.rows} for run in runs]
    changed = [seed for seed in shared if len({one[seed] for one in by_seed}) > 1]
    if changed:
        found.append(f"scenarios: {len(changed)} seeds stand for different dialogues, such as {changed[0]}")
    return found


def _setting(meta: Mapping[str, Any], key: str) -> Any:
    """What a run says of itself; what it leaves open is what `evaluate` then takes."""
    given = meta.get(key)
    if given is None and key == "attacker" and meta.get("env") in SPECS:
        return SPECS[meta["env"]].attacker
    return given or SUITE[key]


def _same_judge(a: Run, b: Run) -> bool:
    """Return whether two runs were judged by the same model with the same prompts, wherever it ran.

    Of a judge made of several, a run need not have asked all members, and an unscored turn names no prompt: a
    member that speaks in one run only is no difference if both runs say that they had the same judge.
    """
    first, second = _prompts(a.rows), _prompts(b.rows)
    said = [judge_name(str(run.meta.get("judge") or "")) for run in (a, b)]
    if first.keys() != second.keys() and not (said[0] and said[0] == said[1]):
        return False
    both = ((first[name], second[name]) for name in first.keys() & second.keys())
    return all(one <= other or other <= one for one, other in both)


def _prompts(rows: Sequence[Row]) -> dict[str, set[str]]:
    """Return the judges that spoke -> hashes of the prompts that their scores name."""
    found: dict[str, set[str]] = {}
    for turn in (turn for row in rows for turn in row["turns"]):
        verdict = turn.get("verdict") or {}
        if verdict.get("judge"):
            hashes = (verdict.get("prompt_hash") or "").split("+")
            found.setdefault(judge_name(str(verdict["judge"])), set()).update(filter(None, hashes))
    return found


def _judges(run: Run) -> str:
    said = (f"{name} {'+'.join(sorted(hashes))}".strip() for name, hashes in _prompts(run.rows).items())
    return ", ".join(sorted(said)) or "none"


def _unequal(what: str, values: Mapping[str, Any]) -> list[str]:
    if len({json.dumps(value, sort_keys=True) for value in values.values()}) < 2:
        return []
    return [f"{what}: " + ", ".join(f"{name} has {value!r}" for name, value in values.items())]


def _unequal_seeds(seeds: Mapping[str, set[Any]]) -> list[str]:
    (first, own), *others = seeds.items()
    lines = []
    for name, theirs in others:
        if own != theirs:
            lines.append(
                f"seeds: {len(own - theirs)} only in {first}, {len(theirs - own)} only in {name}, "
                f"{len(own & theirs)} in both"
            )
    return lines
