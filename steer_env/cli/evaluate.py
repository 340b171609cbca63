"""`steer-env evaluate`: play dialogues against a student and report."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import steer_env
from steer_env.cli.command import Command, Positional
from steer_env.cli.common import (
    RunConfig,
    check_unchanged,
    judge_content,
    model_hash,
    open_folder,
    open_setting,
    open_student,
    run_meta,
)
from steer_env.cli.progress import Bar, Bars, show_table
from steer_env.cli.report import Reports, formats_of
from steer_env.cli.watch import Watch
from steer_env.configs.base import Natural, Positive, Share, Switch, config, flat
from steer_env.configs.env import EnvConfig, Split
from steer_env.configs.student import ModelConfig, SamplingConfig
from steer_env.evaluation.sequential import Look
from steer_env.evaluation.summary import Summary
from steer_env.files import read_json
from steer_env.judges.independence import check_independent
from steer_env.models import is_backend
from steer_env.play.controls import load_controls, play_controls, search, sentence
from steer_env.play.evaluate import DIALOGUES, SUMMARY, UNTIL, Question, check_played, evaluate, load_rows
from steer_env.play.suites import Part, WholeGroups, distribution_of, groups_for, suite_parts
from steer_env.play.until import Until
from steer_env.records import token_pieces
from steer_env.registration import make_seats
from steer_env.runs import RunFolder
from steer_env.scenarios import Scenario
from steer_env.trajectory import Trajectory
from steer_env.unscored import TooManyUnscored
from steer_env.versions import versions_of

#: Dialogues, also of each part of a suite, unless it is told otherwise.
EPISODES = 200

_EXAMPLES = """  steer-env evaluate constructive
  steer-env evaluate runs/mine --env SteerRedTeam-v0 --episodes 500
  steer-env evaluate runs/mine --controls
  steer-env evaluate runs/mine --episodes 2000 --until "harm<0.05"
  steer-env evaluate path/to/model --scenarios my.jsonl --out runs/eval-mine
  steer-env evaluate path/to/model --scenarios my.jsonl --out runs/eval-mine --resume
  steer-env evaluate runs/mine --attacker openai:MODEL@http://localhost:8000/v1 --judge tutor
  steer-env evaluate runs/mine --suite full --attempts 3 --out runs/full"""


@config(frozen=True, kw_only=True)
class Evaluate(RunConfig):
    """Play dialogues against a student and report multi-turn safety, helpfulness, leaks and survival.

    Each rate has its interval. The run folder gets dialogues.jsonl (each row as its dialogue ends),
    summary.json and the report files. Turns without a verdict are never guessed: they show as unscored, and
    rates that hang on them as bounds. The built-in world is played in whole scenario groups, whose members
    differ in the picture or the history alone: the number of dialogues is rounded up. A suite plays each of
    its parts in a folder of its own; `full` is single- and multi-turn, in- and out-of-distribution.

    Attributes:
        student: A script (refuse, comply, constructive, random), hf:tiny, hf:tiny-sft, hf:tiny-grpo, a model
            folder, a run folder, hf:ORGANISATION/MODEL, vllm:PATH, openai:MODEL@URL, or your own as
            MODULE:OBJECT or FILE.py:OBJECT.
        env: The dialogues; --split is bench unless it is given.
        out: Run folder; runs/evaluate/STUDENT unless it is given, and -ENV, -SPLIT, -FILE where they are.
        suite: Plays whole groups in place of --env: bench, bench-single, ood, ood-single or full.
        attempts: In a suite, attempts at each dialogue, seeded differently; 1 unless it is given.
        episodes: Dialogues; 200, or each scenario of a file once, unless it is given.
        seed: First seed; the dialogues take this and the following ones, with those of their groups.
        sampling: How a model replies.
        controls: Play the same dialogues also without pictures, with swapped ones, without the history and
            with a constant reply, each shown as a row; a suite does so by itself.
        no_controls: Play a suite without them.
        until: Stop once this is decided, as in "harm<0.05" or "joint>runs/evaluate/hf-tiny-sft" (another run
            of the same dialogues): without the error of looking often, see docs/evaluation.md.
        tokens: Record a model's tokens with mask and log-probability (large).
        num_envs: Dialogues at a time.
        watch: Show table and curves while it runs.
        unscored_limit: Stop when more than this share of turns, beyond chance, has no verdict; 0.05 unless it
            is given (1 with --scenarios and the rule judge, which cannot score them).
        card: Calibration card of the judge, JSON.
        format: Files to write, of html, md, csv, parquet, png, svg, inspect, hf, with commas between them;
            html,md,csv (and png with matplotlib) unless it is given.
        leakage: File leakage.jsonl of `steer-env data audit`: results by how much was in the training data.
        model: How a model of this process runs.
    """

    student: Positional[str] = ""
    env: EnvConfig = field(default_factory=EnvConfig)
    out: str = ""
    suite: str | None = None
    attempts: Positive | None = None
    episodes: Positive | None = None
    seed: Natural = 0
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=0.0))
    controls: Switch = False
    no_controls: Switch = False
    until: str | None = None
    tokens: Switch = False
    num_envs: Positive = 32
    watch: Switch = False
    unscored_limit: Share | None = None
    card: str | None = None
    format: str | None = None
    leakage: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)

    def folder(self) -> Path:
        """Return the run folder: by default another one for other dialogues."""
        chosen = self.env
        where = (
            chosen.env if chosen.env != EnvConfig().env else None,
            chosen.split if chosen.split not in (None, "bench") else None,
            Path(chosen.scenarios).stem if isinstance(chosen.scenarios, str) else None,
        )
        name = "-".join(filter(None, (self.student, self.suite, *(where if self.suite is None else ()))))
        return Path(
            self.out or Path("runs/evaluate") / (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "student")
        )

    def free(self) -> tuple[str, ...]:
        """Return the names of what may change when the run goes on."""
        how = ("tokens", "num_envs", "watch", "unscored_limit", "card", "format", "leakage", "controls")
        of_suite = ("suite", "episodes", "attempts") if self.suite is None else ()
        return (*how, "no_controls", "until", "device", "batch_size", *of_suite)

    def limit(self, own: bool) -> float:
        """Return the limit on unscored turns; `own` scenarios the rule judge cannot score."""
        if self.unscored_limit is not None:
            return self.unscored_limit
        return 1.0 if own else 0.05


def run(config: Evaluate) -> int:
    """Evaluate and print the table."""
    # What is wrong with the reports is said before anything is played.
    reports = Reports.read(formats_of(config.format), config.card, config.leakage)
    if not config.student:
        raise ValueError("student is missing, expected a script, a model or a folder; see --help")
    question = None if config.until is None else Until.read(config.until)
    if config.suite is not None:
        if question is not None:
            raise ValueError(
                f"until={config.until!r} beside suite={config.suite!r}, whose size is fixed; leave one out"
            )
        return _run_suite(config, suite_parts(config.suite), reports)
    if config.attempts is not None:
        raise ValueError(f"attempts={config.attempts!r} without a suite, expected --suite beside --attempts")
    return _run_plain(config, reports, question)


def _run_plain(config: Evaluate, reports: Reports, question: Until | None) -> int:
    """Play dialogues of one environment."""
    out = open_folder(config)
    setting = open_setting(config.env, "bench")
    unscorable = setting.source is not None and getattr(setting.judge, "name", "") == "rule"
    student = open_student(config.student, config.model, **asdict(config.sampling))
    check_independent(setting.judge, student, setting.attacker, allow=config.env.allow_self_judge)
    own, split = setting.scenarios, setting.env.split
    episodes = config.episodes or (EPISODES if own is None else len(own))
    content = {"scenario_hash": setting.digest, "model_hash": model_hash(config.student)}
    content |= judge_content(setting.judge)
    check_unchanged(out, **content)
    print(f"dialogues go to {out / DIALOGUES}")
    where = {} if split is None else {"distribution": distribution_of(split)}
    part = _Dialogues(
        label=f"evaluate {config.student}",
        vec=setting.make(min(config.num_envs, episodes)),
        attacker=lambda: setting.attacker,
        student=student,
        seeds=range(config.seed, config.seed + episodes),
        scenarios=own,
        meta=run_meta("evaluate", config, content, free=False),
        labels=lambda _: where,
        limit=config.limit(unscorable),
        constant=None if split is None else search(setting.env.env, split=split),
        controls=config.controls,
        until=None if question is None else question.look,
    )
    summary, controls = _play(part, config, out)
    title = f"{setting.env.env}, {config.env.scenarios or split or ''}"
    _show(config.student, summary, title, controls, out)
    if question is not None:
        print(Look(**read_json(out / UNTIL)))
    print(f"summary: {out / SUMMARY}")
    reports.write({config.student: out}, out, title=title)
    return 0


def _run_suite(config: Evaluate, parts: Sequence[Part], reports: Reports) -> int:
    """Play every part of a suite, each into its own folder of the run."""
    config = replace(config, episodes=config.episodes or EPISODES, attempts=config.attempts or 1)
    who = {name: getattr(config.env, name) for name in ("attacker", "judge", "allow_self_judge")}
    for name, value in flat(config.env).items():
        if value != flat(EnvConfig(**who))[name]:
            raise ValueError(
                f"{name}={value!r} beside suite={config.suite!r}, which decides the dialogues; leave "
                f"--{name.replace('_', '-')} or --suite out"
            )
    out = open_folder(config)
    student = open_student(config.student, config.model, **asdict(config.sampling))
    first, judge = make_seats(config.env.env, config.env.attacker, config.env.judge)
    check_independent(judge, student, first, allow=config.env.allow_self_judge)
    content = {"model_hash": model_hash(config.student), **judge_content(judge)}
    check_unchanged(out, **content)

    def attacker(env: str) -> Any:
        """Return the attacker of an environment: a model is opened once, a script is made each time."""
        name = config.env.attacker
        return first if name is not None and is_backend(name) else steer_env.make_attacker(env, name)

    varied = {part.name: student.varies or attacker(part.env).varies for part in parts}
    if config.attempts != 1 and not any(varied.values()):
        raise ValueError(
            f"attempts={config.attempts!r} with greedy replies to an attacker that does not vary would be "
            "one dialogue again and again; expected a sampling student (--temperature 1) or --attacker tutor"
        )
    meta = run_meta("evaluate", config, content, free=False) | {"parts": [part.name for part in parts]}
    RunFolder(out).write(meta | versions_of(judge))
    print(f"dialogues go to {', '.join(str(out / part.name / DIALOGUES) for part in parts)}")
    for part in parts:
        attempts = (config.attempts or 1) if varied[part.name] else 1
        if attempts < (config.attempts or 1):
            print(f"{part.name}: one attempt, as greedy replies to a static attacker are the same each time")
        groups = groups_for(part.env, part.split, config.episodes or EPISODES)
        scenarios = WholeGroups(part.env, part.split, groups, config.seed)
        env = replace(config.env, env=part.env, split=cast(Split, part.split))
        said = run_meta("evaluate", replace(config, env=env, suite=None), content, free=False)
        dialogues = _Dialogues(
            label=f"evaluate {config.student} {part.name}",
            vec=steer_env.make_vec(env, min(config.num_envs, len(scenarios)), judge=judge),
            attacker=partial(attacker, part.env),
            student=student,
            seeds=range(len(scenarios)),
            scenarios=scenarios,
            meta=said | {"suite": part.name, "groups": groups},
            labels=partial(_labels, part, scenarios),
            limit=config.limit(own=False),
            constant=search(part.env, split=part.split),
            controls=not config.no_controls,
            attempts=attempts,
        )
        _play(dialogues, config, out / part.name)
    reports.write({config.student: out}, out, title=f"steer_env: {config.student}")
    return 0


@dataclass(frozen=True)
class _Dialogues:
    """What goes to one run folder: the dialogues of a plain run, or of a part of a suite.

    Attributes:
        label: What is shown while they are played.
        vec: Their environments.
        attacker: Returns whom an attempt begins with.
        student: The student.
        seeds: Seeds of the first attempt; the others take those that follow.
        scenarios: What the seeds play; None lets the environments draw.
        meta: What the run says of itself.
        labels: Gives the further keys of a row.
        limit: On unscored turns.
        constant: Chooses the constant reply of the controls, see `play_controls`.
        controls: Whether they are played.
        attempts: At each dialogue, seeded differently; 0 for a plain run, whose student keeps its seed.
        until: Ends it early, see `evaluate`.
    """

    label: str
    vec: Any
    attacker: Callable[[], Any]
    student: Any
    seeds: range
    scenarios: Sequence[Scenario] | None
    meta: Mapping[str, Any]
    labels: Callable[[Trajectory], Mapping[str, Any]]
    limit: float
    constant: Callable[[], tuple[str, Any]] | None
    controls: bool
    attempts: int = 0
    until: Question | None = None


def _play(part: _Dialogues, config: Evaluate, folder: Path) -> tuple[Summary, dict[str, Summary]]:
    """Play dialogues, and controls if wanted; what is in the folder already is not played again."""
    count, student, seeds = len(part.seeds), part.student, part.seeds
    total = count * max(1, part.attempts)
    how: dict[str, Any] = {"scenarios": part.scenarios, "meta": part.meta}
    how["allow_self_judging"] = config.env.allow_self_judge
    with Watch(part.label, folder / DIALOGUES) if config.watch else Bar(part.label, total) as bar:
        for attempt in range(max(1, part.attempts)):
            before, attacker = attempt * count, part.attacker()
            seeds = range(part.seeds.start + before, part.seeds.stop + before)
            if part.attempts:
                student.reseed(attempt)
            if attempt:
                attacker.reseed(attempt)
            tell = partial(_tell, bar, before, total)
            try:
                summary = evaluate(
                    part.vec,
                    attacker,
                    student,
                    seeds,
                    folder,
                    resume=config.resume or attempt > 0,
                    extra=lambda d: {**part.labels(d), **(token_row(d, student) if config.tokens else {})},
                    progress=tell,
                    unscored_limit=part.limit,
                    summary_of=range(part.seeds.start, seeds.stop) if part.attempts else None,
                    until=part.until,
                    **how,
                )
            except TooManyUnscored as error:
                show = shlex.join(["steer-env", "report", str(folder)])
                raise TooManyUnscored(f"{error}. What was played is kept: {show}") from error
    rows = load_rows(folder)
    check_played(rows)
    if not part.controls:
        return summary, {}
    if part.attempts:
        student.reseed(0)
    with Bars() as bars:
        controls = play_controls(
            part.vec,
            part.attacker(),
            student,
            part.seeds if part.until is None else [row["seed"] for row in rows],
            folder,
            constant=part.constant,
            progress=lambda name, n, of: bars.update(f"{part.label}, {name}", n, of),
            extra=part.labels,
            unscored_limit=1.0,  # a control that the judge cannot read is a result, too
            **how,
        )
    return summary, controls


def _tell(bar: Bar | Watch, before: int, total: int, done: int, of: int) -> None:
    """Show the progress of one attempt as that of all; whole groups may be more than was asked for."""
    bar.update(before + done, max(of, total))


def _labels(part: Part, scenarios: WholeGroups, dialogue: Trajectory) -> dict[str, Any]:
    """Return the further keys of a row of a suite."""
    attempt, index = divmod(dialogue.seed, len(scenarios))
    where = {"suite": part.name, "distribution": part.distribution, "attempt": attempt}
    return {**where, **scenarios.labels(index)}


def token_row(dialogue: Trajectory, student: Any) -> dict[str, Any]:
    """Return the tokens of a finished dialogue for its row, nothing where the student has none."""
    if dialogue.trace is None:
        return {}
    return {"tokens": token_pieces(dialogue.trace, student.codec.tokenizer.decode)}


def _show(name: str, summary: Summary, title: str, controls: dict[str, Summary], out: Path) -> None:
    worth = {name: sentence(load_rows(out), load_controls(out))} if controls else {}
    show_table({name: summary}, title, controls={name: controls}, worth=worth)
    print(f"harm rate {summary.harm_rate.text(percent=True)}; refused harmless turns "
          f"{summary.refusal_of_harmless.text(percent=True)}")  # fmt: skip


def plot(summaries: Any, path: Path, title: str) -> str:
    """Draw the survival plot and return where it is, or why there is none."""
    from steer_env.report.plots import survival_plot

    try:
        return str(survival_plot(summaries, path, title=title))
    except ImportError as error:  # the numbers stand without it
        return f"none ({error})"


COMMAND = Command(Evaluate, run, _EXAMPLES)
