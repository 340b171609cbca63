"""Which world and which judge a run's numbers come from: numbers of different versions are not compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steer_env.judges.independence import parts
from steer_env.world.truth import WORLD_VERSION

#: What a run without a version is: runs written before there were any.
UNVERSIONED = 1


def judge_version(judge: Any) -> int | str:
    """Return the version of a judge, of one made of several joined by "+".

    Judges carry an integer attribute `version`; 1 where none does.
    """
    found = [getattr(part, "version", None) for part in parts(judge)]
    numbers = [one for one in found if isinstance(one, int) and not isinstance(one, bool)]
    if len(numbers) < 2:
        return numbers[0] if numbers else UNVERSIONED
    return "+".join(map(str, numbers))


def versions_of(judge: Any) -> dict[str, Any]:
    """Return what a run folder says of world and judge: `world_version`, `judge_version`."""
    return {"world_version": WORLD_VERSION, "judge_version": judge_version(judge)}


def versions_in(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions that a run folder says, 1 where it says none."""
    return {key: meta.get(key, UNVERSIONED) for key in ("world_version", "judge_version")}
