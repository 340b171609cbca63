"""`steer-env rescore`: judge stored dialogues again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from steer_env.cli.command import Command, Positional
from steer_env.cli.common import claim
from steer_env.cli.progress import Bar, show_table
from steer_env.configs.base import Positive, Switch, config
from steer_env.configs.env import Role
from steer_env.judges.independence import check_independent
from steer_env.models import is_backend
from steer_env.models.weights import weights_id
from steer_env.naming import read_name

_EXAMPLES = """  steer-env rescore runs/mine --judge rule
  steer-env rescore runs/mine --judge rule --out runs/mine-rule --resume"""


@config(frozen=True, kw_only=True)
class Rescore:
    """Judge the dialogues of a run folder and of its controls again, without generating anything.

    The result is a run folder of its own. The scenarios are made again from the run's options and seeds; a
    dialogue that does not fit its scenario is an error. After Ctrl-C, --resume goes on and judges nothing
    twice.

    Attributes:
        source: Run folder that evaluate wrote, or a log of Inspect AI.
        judge: Name of the judge, such as rule, or of several, as ensemble:...
        allow_self_judge: Let the judge have the weights of the student or the attacker.
        out: Run folder; RUN-JUDGE unless it is given.
        scenarios: Where the run's scenario file is now.
        batch: Dialogues per call.
        resume: Continue the run in --out.
        trust: Accept links that lead out of the folder, and run the code of scenarios that the run names.
    """

    source: Positional[Path]
    judge: str
    allow_self_judge: tuple[Role, ...] = ()
    out: Path | None = None
    scenarios: str | None = None
    batch: Positive = 16
    resume: Switch = False
    trust: Switch = False


def run(config: Rescore) -> int:
    """Judge again and print the table."""
    from steer_env.evaluation.summary import summarise
    from steer_env.files import read_json
    from steer_env.play.controls import load_controls, sentence
    from steer_env.play.evaluate import load_rows
    from steer_env.play.logs import is_log
    from steer_env.play.recorded import load_parts
    from steer_env.play.rescore import rescore, scenes_of
    from steer_env.registration import make_judge
    from steer_env.report.outputs import file_name
    from steer_env.runs import RUN, RunFolder

    judge = make_judge(config.judge)
    if judge is None:
        raise ValueError(f"judge={config.judge!r}, expected the name of a judge, such as rule")
    parts = load_parts(config.source)
    for one in parts.values():  # who played is known by name and by the hash of its weights
        check_independent(judge, *_players(one.meta), allow=config.allow_self_judge)
    suite = "" not in parts
    name = config.source.stem if is_log(config.source) else config.source.name
    out = config.out or config.source.with_name(f"{name}-{file_name(judge.name)}")
    claim(out, config.trust)
    folder, meta = RunFolder(out), {"rescored_from": str(config.source), "judge": judge.name}
    if suite:
        meta = read_json(config.source / RUN) | meta
        folder.check(meta, resume=config.resume, exact=True)
    # All are checked before any is judged.
    scenes = {
        part: scenes_of(one.meta, scenarios=config.scenarios, trust=config.trust)
        for part, one in parts.items()
    }
    if suite:
        folder.write(meta)
    print(f"dialogues go to {out}")
    summaries, controls, worth = {}, {}, {}
    for part in parts:
        source = config.source / part
        with Bar(f"rescore {source}") as bar:
            summary = rescore(
                source,
                judge,
                scenes[part],
                out / part,
                resume=config.resume,
                batch=config.batch,
                progress=bar.update,
            )
        label = f"{name}{' ' if part else ''}{part}, judge {judge.name}"
        beside = load_controls(out / part)
        summaries[label] = summary
        controls[label] = {what: summarise(rows) for what, rows in beside.items()}
        if beside:
            worth[label] = sentence(load_rows(out / part), beside)
    show_table(summaries, "", controls=controls, worth=worth)
    return 0


def _players(meta: Mapping[str, Any]) -> list[Any]:
    """Return stand-ins for student and attacker of a run, with the weights they had as far as it says."""
    found = []
    for name, known in ((meta.get("student"), meta.get("model_hash")), (meta.get("attacker"), None)):
        bare = read_name(str(name or ""))[0]
        model = bare.partition(":")[2].partition("@http")[0] if is_backend(bare) else ""
        found.append(SimpleNamespace(weights=known or (weights_id(model) if model else "")))
    return found


COMMAND = Command(Rescore, run, _EXAMPLES)
